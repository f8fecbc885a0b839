//! What a start goes on from: the newest generation on disk that is whole and of this dataflow, or views of another version
//! that stand until there are new ones.
//!
//! | a generation is | then |
//! | --- | --- |
//! | from before events were removed from the log | it is dropped: it may hold them |
//! | damaged, of another log, or covers events that the log lost without having synced them | it is passed over; the next older is looked at |
//! | of a log that had synced other events below its frontier than the log has now | the start is refused: the log lost something |
//! | of another version of the dataflow | its views stand, if there is none of this version; a full cycle is due |
//! | whole and of this version | the start goes on from it; for another number of workers its runs are written anew |
//!
//! Without any, everything is computed from the log.

use std::sync::Arc;

use crate::log::{Event, Offset, Partition, Tick};
use crate::runs::{Generation, GenerationError, GenerationStore, History, LogRange, Manifest};
use crate::serving::Served;

use super::control::{Report, Restored};
use super::node::{Node, Outcome, Standing, failed, failed_by};

impl<E: Event> Node<E> {
    /// Finds the newest generation that can be gone on with, or else the newest of another version whose views can be read.
    pub(super) fn restore(&self, passed_over: &[u64]) -> Outcome {
        let mut restored = Restored::default();
        {
            let mut state = self.state();
            (state.restored, state.standing) = (None, None);
        }
        let Some(store) = &self.options.store else { return Ok(Report::Restored(Box::new(restored))) };
        if self.options.crew.process() == 0 {
            self.drop_erased(store).map_err(failed_by)?;
        }
        // What a process that was killed had begun to write.
        match self.options.crew.process() {
            0 => store.tidy_all(),
            _ => store.tidy(),
        }
        let log = self.range(Tick::MAX).map_err(|error| failed_by(error.into()))?;
        for (id, manifest) in store.manifests().map_err(failed_by)? {
            restored.last_id = restored.last_id.max(id);
            if passed_over.contains(&id) {
                store.pass_over(id);
                restored.passed_over.push(format!("generation {id} is passed over: another process cannot use it"));
                continue;
            }
            match manifest.and_then(|manifest| self.try_restore(store, &manifest, &log, &mut restored)) {
                Ok(true) => break,
                Ok(false) => {}
                // Computing it again would hide that the log lost something.
                Err(error @ GenerationError::Ahead { .. }) => return Err(failed_by(error)),
                Err(error) => {
                    store.pass_over(id);
                    tracing::warn!(generation = id, %error, "a generation is passed over");
                    restored.passed_over.push(format!("generation {id} is passed over: {error}"));
                }
            }
        }
        Ok(Report::Restored(Box::new(restored)))
    }

    /// Generations from before facts were removed from the log may hold them.
    fn drop_erased(&self, store: &GenerationStore) -> Result<(), GenerationError> {
        let revision = self.log.revision();
        let dropped = store.drop_if(|(_, manifest)| manifest.as_ref().is_ok_and(|manifest| manifest.contents.log.revision != revision))?;
        if !dropped.is_empty() {
            tracing::warn!(?dropped, "generations from before events were removed from the log are dropped");
        }
        Ok(())
    }

    /// Whether a generation can be gone on with; one of another version is noted.
    fn try_restore(
        &self,
        store: &GenerationStore,
        manifest: &Manifest,
        log: &LogRange,
        restored: &mut Restored,
    ) -> Result<bool, GenerationError> {
        let (id, covers) = (manifest.id, &manifest.contents.log);
        if covers.revision != log.revision {
            // Process 0 drops it.
            return Err(GenerationError::Unusable { id, why: "is from before events were removed from the log".to_owned() });
        }
        let Some(mut covered) = covers.ends_in(log.ends.len()).filter(|_| covers.id == log.id) else {
            return Err(GenerationError::Unusable { id, why: format!("is of log {}, this is log {}", covers.id, log.id) });
        };
        // What others' partitions have, the processes that own them compare.
        let others = (0..).zip(&mut covered).filter(|(number, _)| !self.log.owns(Partition(*number)));
        others.for_each(|(_, end)| *end = Offset(0));
        // What the log has below the frontier is fixed since the frontier was announced. If it is not what was covered, the log is
        // an older copy, or it lost its end, and may have grown again since.
        let has = self.log.offsets_at(manifest.frontier)?;
        if covered != has || manifest.frontier > self.log.frontier() {
            if !covers.synced {
                return Err(GenerationError::Unusable { id, why: "covers events that the log lost: they were not synced".to_owned() });
            }
            let place = |ends: &[Offset]| ends.iter().map(|end| end.to_string()).collect::<Vec<_>>().join(", ");
            return Err(GenerationError::Ahead { id, frontier: manifest.frontier, covers: place(&covered), has: place(&has) });
        }
        let current = manifest.contents.fingerprint == self.blueprint.fingerprint();
        if !current && restored.outdated.is_some() {
            return Ok(false);
        }
        let (crew, of) = (&self.options.crew, manifest.contents.shards.len());
        let files = store.files_of(manifest, if of == crew.peers() { crew.own() } else { 0..of })?;
        if !current {
            let (views, unread) = self.blueprint.standing(store, manifest, &files, crew)?;
            restored.outdated = Some(manifest.clone());
            self.state().standing = Some(Standing { manifest: manifest.clone(), views, unread });
            return Ok(false);
        }
        let generation = Generation { id, frontier: manifest.frontier, shards: self.blueprint.restore(store, files, of, crew)? };
        restored.tail = log.ends.iter().zip(&covered).map(|(end, covered)| end.0 - covered.0).sum();
        restored.resharded_from = (of != crew.peers()).then_some(of);
        restored.newest = Some(manifest.clone());
        let mut state = self.state();
        (state.restored, state.standing) = (Some(Arc::new(generation)), None);
        Ok(true)
    }

    pub(super) fn stand(&self) -> Outcome {
        let state = self.state();
        let Some(standing) = &state.standing else { return Err(failed("no views stand", 1)) };
        let (id, frontier) = (standing.manifest.id, standing.manifest.frontier);
        let history = Arc::new(History::new(frontier.0.saturating_sub(1), 0));
        self.serving.switch(Served::new(id, frontier, standing.views.clone(), history), || false);
        Ok(Report::Done)
    }
}
