//! The workers that a dataflow is checked on, and how they are connected.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::layers::{BatchOutput, Crew, Dataflow, Feed, Replay, SpeedGraph, SpeedWorkers, run_batch};
use crate::log::{Block, Event, Tick};
use crate::operators::Codec;
use crate::runs::Generation;

use super::law::Random;
use super::loopback;

/// How workers exchange rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connected {
    /// As threads of one process, which hand rows over.
    Threads,
    /// As threads of one process, which write and read every row.
    Serialized(Codec),
    /// As several processes of as many workers each, over sockets. The processes are played by threads.
    Sockets {
        /// Number of processes.
        processes: usize,
        /// How rows are written between them.
        codec: Codec,
    },
}

impl Connected {
    /// Some way that is not [`Connected::Threads`], by any codec of this build, and a number of workers that goes with it.
    pub(super) fn any(random: &mut Random) -> (Self, usize) {
        let codecs: Vec<Codec> = Codec::ALL.into_iter().filter_map(|codec| codec.available().ok()).collect();
        let codec = codecs[random.below(codecs.len() as u64) as usize];
        // Few workers, mostly: each builds the graphs, which is most of the time of a check over few events.
        match random.below(8) {
            0..3 => (Self::Serialized(codec), 2),
            3..6 => (Self::Sockets { processes: 2, codec }, 1),
            6 => (Self::Sockets { processes: 3, codec }, 1),
            _ => (Self::Sockets { processes: 2, codec }, 2),
        }
    }

    /// Other processes for what so many workers of each wrote: one more, and one after three. A number of workers goes with it.
    pub(super) fn others(self, others: usize) -> (Self, usize) {
        match self {
            Self::Sockets { processes: 3, codec } => (Self::Sockets { processes: 1, codec }, 2),
            Self::Sockets { processes, codec } => (Self::Sockets { processes: processes + 1, codec }, 1),
            as_it_is => (as_it_is, others),
        }
    }
}

/// Workers of one or several processes.
pub(super) struct Team {
    crews: Vec<Crew>,
}

impl Team {
    /// So many workers in each process.
    pub fn new(connected: Connected, workers: usize) -> Self {
        let crews = match connected {
            Connected::Threads => vec![Crew::from(workers)],
            Connected::Serialized(codec) => vec![Crew::serialized(workers).codec(codec)],
            Connected::Sockets { processes, codec } => {
                let links = loopback(processes).into_iter().enumerate();
                links.map(|(process, links)| Crew::new(workers, process, processes, links).codec(codec)).collect()
            }
        };
        Self { crews }
    }

    /// Workers of all processes.
    pub fn peers(&self) -> usize {
        self.crews[0].peers()
    }

    /// Each process's share of blocks, and the shards of its workers.
    fn shares<E: Event>(&self, base: &Generation, blocks: Vec<Block<E>>, end: Tick, random: &mut Random) -> Vec<(Generation, Replay<E>)> {
        let mut shares: Vec<Vec<Block<E>>> = self.crews.iter().map(|_| Vec::new()).collect();
        blocks.into_iter().for_each(|block| shares[random.below(self.crews.len() as u64) as usize].push(block));
        let of = |(crew, share): (&Crew, _)| {
            let base = Generation { shards: base.shards[crew.own()].to_vec(), ..base.clone() };
            (base, Replay::new(share, end))
        };
        self.crews.iter().zip(shares).map(of).collect()
    }

    /// What a batch over the blocks makes on all workers of all processes.
    pub fn batch<E: Event>(
        &self,
        dataflow: &Arc<dyn Dataflow<E>>,
        base: &Generation,
        blocks: Vec<Block<E>>,
        cut: Tick,
        random: &mut Random,
    ) -> BatchOutput {
        let stop = Arc::new(AtomicBool::new(false));
        let shares = self.shares(base, blocks, cut, random);
        let mut outputs = std::thread::scope(|scope| {
            let run = |(crew, (base, source)): (&Crew, _)| {
                let (crew, stop) = (crew.clone(), Arc::clone(&stop));
                let (base, feed): (Generation, _) = (base, Feed::new(source, Some(cut)));
                scope.spawn(move || {
                    run_batch(dataflow, Some(&base), feed, cut, crew, &stop).unwrap_or_else(|error| {
                        // Or else the others would wait for this one's rows.
                        stop.store(true, Ordering::Release);
                        panic!("{error}")
                    })
                })
            };
            let running: Vec<_> = self.crews.iter().zip(shares).map(run).collect();
            running.into_iter().map(|output| output.join().expect("no batch panics")).collect::<Vec<_>>().into_iter()
        });
        let mut all = outputs.next().expect("there is a process");
        for output in outputs {
            all.bases.extend(output.bases);
            all.frozen.extend(output.frozen);
            all.shards.extend(output.shards);
        }
        all
    }

    /// A speed graph on all workers of all processes, when it has followed all blocks. Each process's part is read apart.
    pub fn follow<E: Event>(
        &self,
        dataflow: &Arc<dyn Dataflow<E>>,
        base: &Generation,
        from: Tick,
        history: u64,
        (blocks, end): (Vec<Block<E>>, Tick),
        random: &mut Random,
    ) -> Followed<E> {
        let shares = self.shares(base, blocks, end, random);
        let start = |crew: &Crew| SpeedWorkers::start(crew.clone(), Arc::new(|| ())).expect("workers start");
        let mut followed = Followed { graphs: Vec::new(), workers: self.crews.iter().map(start).collect() };
        for (workers, (base, source)) in followed.workers.iter().zip(shares) {
            let graph = workers.install(dataflow, Arc::new(base), from, Feed::new(source, None), history);
            followed.graphs.push(graph.unwrap_or_else(|reason| panic!("{reason}")));
        }
        let deadline = Instant::now() + Duration::from_secs(120);
        for (workers, graph) in followed.workers.iter().zip(&followed.graphs) {
            while graph.upper() < end {
                assert_eq!(workers.panicked(), None);
                // As the serving layer does: history is counted from what is served.
                followed.graphs.iter().for_each(|graph| graph.history.serve(graph.upper().0));
                assert!(Instant::now() < deadline, "the speed graph stands at {} of {}", graph.upper().0, end.0);
                std::thread::sleep(Duration::from_micros(200));
            }
        }
        followed
    }
}

/// A speed graph by processes, and the workers it is on.
pub(super) struct Followed<E: Event> {
    pub graphs: Vec<SpeedGraph<E>>,
    workers: Vec<SpeedWorkers<E>>,
}

impl<E: Event> Drop for Followed<E> {
    /// All processes at once: each ends when the others have closed their connections to it.
    fn drop(&mut self) {
        std::thread::scope(|scope| self.workers.drain(..).for_each(|workers| _ = scope.spawn(move || workers.stop())));
    }
}
