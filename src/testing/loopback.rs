//! Connections between processes that are played by threads of one.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use crate::layers::Links;

/// Links for each of `processes`, over sockets of this machine. The k-th time that a process asks for a graph of some name and
/// number, it gets the other ends of what the others get, or will get, the k-th time. So nobody waits here, and one thread may
/// start all processes one after the other.
pub fn loopback(processes: usize) -> Vec<Arc<dyn Links>> {
    let between = Arc::new(Between::default());
    (0..processes).map(|process| Arc::new(Loopback { process, processes, between: Arc::clone(&between) }) as Arc<dyn Links>).collect()
}

struct Loopback {
    process: usize,
    processes: usize,
    between: Arc<Between>,
}

#[derive(Default)]
struct Between(Mutex<Asked>);

#[derive(Default)]
struct Asked {
    /// How often, by process and graph.
    times: HashMap<(usize, String, u64), usize>,
    /// Ends that are not fetched yet, by graph, number, time, and the processes at this end and at the other.
    ends: HashMap<(String, u64, usize, usize, usize), TcpStream>,
}

impl Links for Loopback {
    fn connect(&self, graph: &str, number: u64, _stop: &AtomicBool) -> Result<Vec<Option<TcpStream>>, String> {
        let mut asked = self.between.0.lock().unwrap_or_else(PoisonError::into_inner);
        let times = asked.times.entry((self.process, graph.to_owned(), number)).or_default();
        let time = *times;
        *times += 1;
        let mut to = |other| {
            if let Some(end) = asked.ends.remove(&(graph.to_owned(), number, time, self.process, other)) {
                return Ok(end);
            }
            let (own, others) = pair().map_err(|error| format!("no sockets between processes {} and {other}: {error}", self.process))?;
            asked.ends.insert((graph.to_owned(), number, time, other, self.process), others);
            Ok(own)
        };
        (0..self.processes).map(|other| (other != self.process).then(|| to(other)).transpose()).collect()
    }
}

fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let one = TcpStream::connect(listener.local_addr()?)?;
    let (other, _) = listener.accept()?;
    one.set_nodelay(true)?;
    other.set_nodelay(true)?;
    Ok((one, other))
}
