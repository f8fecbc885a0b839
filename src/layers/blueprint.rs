//! What a dataflow keeps and publishes, known without any event: its definition is built once and thrown away. With it,
//! runs on disk can be recognised and read.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::log::{Event, EventType, Tick};
use crate::operators::{Layer, Purpose, ViewExport, panic_message};
use crate::runs::data::stable_hash;
use crate::runs::{AnyLevels, GenerationError, GenerationStore, Manifest, Portion, RunFile, Shard, SlotInfo, View, ViewInfo};

use super::crew::Crew;
use super::feed::{Feed, Replay};
use super::graph::{Dataflow, build};

/// The outline of a dataflow.
pub struct Blueprint {
    /// Empty levels of each slot's types.
    slots: Vec<Arc<dyn AnyLevels>>,
    outline: Vec<SlotInfo>,
    views: Vec<ViewExport>,
    fingerprint: u64,
}

impl Blueprint {
    /// Builds a dataflow's definition to see what it is made of. `version` stands for what cannot be seen: the code of its
    /// closures. Fails if building panics.
    pub fn of<E: Event>(dataflow: &Arc<dyn Dataflow<E>>, version: &str) -> Result<Self, String> {
        let dataflow = Arc::clone(dataflow);
        let built = timely::execute(timely::Config::thread(), move |worker| {
            let built = catch_unwind(AssertUnwindSafe(|| {
                let layer = Layer::new(None, Tick::ZERO, Purpose::Batch);
                let feed = Feed::new(Replay::<E>::new([], Tick::ZERO), None);
                build(worker, "Blueprint", &*dataflow, &layer, Arc::new(feed));
                (layer.base().slots().to_vec(), layer.outline(), layer.views())
            }));
            let _ = catch_unwind(AssertUnwindSafe(|| worker.installed_dataflows().into_iter().for_each(|id| worker.drop_dataflow(id))));
            built.map_err(|panic| panic_message(&*panic))
        })?;
        let built = built.join().pop().unwrap_or_else(|| Err("no worker was started".to_owned()))?;
        let (slots, outline, views) = built.map_err(|message| format!("the dataflow's definition panicked: {message}"))?;
        let kept: Vec<_> = outline.iter().map(|slot| (&slot.name, slot.types)).collect();
        let published: Vec<_> = views.iter().map(|view| (&view.info.name, &view.info.key, &view.info.value)).collect();
        // What an operator keeps in its slots may change with a release of this library.
        let release = env!("CARGO_PKG_VERSION");
        let fingerprint = stable_hash(&(EventType::of::<E>().fingerprint, release, version, kept, published));
        Ok(Self { slots, outline, views, fingerprint })
    }

    /// Identifies the dataflow: generations with the same can be gone on with.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// The collections that it keeps.
    pub fn outline(&self) -> &[SlotInfo] {
        &self.outline
    }

    /// Its views and their slots.
    pub fn views(&self) -> Vec<(ViewInfo, usize)> {
        self.views.iter().map(|view| (view.info.clone(), view.slot)).collect()
    }

    /// Reads this process's shards of a generation of this dataflow. The files are those of its own shards, if there are as many
    /// shards as workers; else those of all `of` shards, and the runs are written anew.
    pub(crate) fn restore(
        &self,
        store: &GenerationStore,
        files: Vec<Vec<Arc<RunFile>>>,
        of: usize,
        crew: &Crew,
    ) -> Result<Vec<Arc<Shard>>, GenerationError> {
        // Every row is looked at: a shard for each thread.
        let shards = std::thread::scope(|scope| {
            let open = |files| scope.spawn(move || Shard::open(&self.slots, files).map(Arc::new));
            let opening: Vec<_> = files.into_iter().map(open).collect();
            opening.into_iter().map(|shard| shard.join().expect("opening a file does not panic")).collect::<Result<Vec<_>, _>>()
        })?;
        if of == crew.peers() { Ok(shards) } else { store.reshard(&shards, &self.slots, crew.own(), crew.peers()) }
    }

    /// This process's portion of the views of a generation as they stand at its frontier. The generation may be of another
    /// dataflow: then only views of the same name, columns and types are read; the names of the others come second. For the
    /// files see `Blueprint::restore`.
    pub fn standing(
        &self,
        store: &GenerationStore,
        manifest: &Manifest,
        files: &[Vec<Arc<RunFile>>],
        crew: &Crew,
    ) -> Result<(BTreeMap<String, Arc<dyn View>>, Vec<String>), GenerationError> {
        let (mut read, mut slots, mut shards, mut unread) = (Vec::new(), Vec::new(), vec![Vec::new(); files.len()], Vec::new());
        for (info, slot) in &manifest.contents.views {
            let types = manifest.contents.slots.get(*slot).map(|slot| slot.types);
            let known = self.views.iter().find(|view| view.info == *info && types == Some(self.outline[view.slot].types));
            let Some(view) = known else {
                unread.push(info.name.clone());
                continue;
            };
            for (shard, files) in shards.iter_mut().zip(files) {
                shard.push(self.slots[view.slot].open(files, *slot)?);
            }
            slots.push(Arc::clone(&self.slots[view.slot]));
            read.push((view, info));
        }
        let of = manifest.contents.shards.len();
        let mut shards: Vec<Arc<Shard>> = shards.into_iter().map(|slots| Arc::new(Shard::new(slots))).collect();
        let mut portion = Portion { first: crew.own().start, of };
        if of != crew.peers() && crew.processes() == 1 {
            portion = Portion::whole(of);
        } else if of != crew.peers() {
            shards = store.reshard(&shards, &slots, crew.own(), crew.peers())?;
            portion = crew.portion();
        }
        let standing = |(at, (view, info)): (usize, (&ViewExport, &ViewInfo))| {
            let levels = shards.iter().map(|shard| Arc::clone(&shard.slots()[at])).collect();
            (info.name.clone(), assemble(view, info, levels, manifest.frontier, portion))
        };
        Ok((read.into_iter().enumerate().map(standing).collect(), unread))
    }

    /// This process's portion of the views of this dataflow as they stand on its shards.
    pub(crate) fn standing_on(&self, shards: &[Arc<Shard>], frontier: Tick, crew: &Crew) -> BTreeMap<String, Arc<dyn View>> {
        let standing = |view: &ViewExport| {
            let levels = shards.iter().map(|shard| Arc::clone(&shard.slots()[view.slot])).collect();
            (view.info.name.clone(), assemble(view, &view.info, levels, frontier, crew.portion()))
        };
        self.views.iter().map(standing).collect()
    }
}

fn assemble(view: &ViewExport, info: &ViewInfo, levels: Vec<Arc<dyn AnyLevels>>, frontier: Tick, portion: Portion) -> Arc<dyn View> {
    let shards = levels.into_iter().map(|levels| (view.standing)(levels.into_any(), frontier)).collect();
    (view.assemble)(info.clone(), shards, portion)
}
