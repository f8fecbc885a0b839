//! A connection on which workers exchange rows, and which says so when it breaks: of the threads that use it, timely tells only
//! that they panicked.

use std::io::{ErrorKind, Read, Result, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;

use timely::communication::allocator::zero_copy::stream::Stream;

/// Is told to which process a connection broke, and why; once or more often for each.
pub(super) type Broke = Arc<dyn Fn(usize, &str) + Send + Sync>;

/// One end of a connection.
pub(super) struct Wire {
    stream: TcpStream,
    end: Arc<End>,
    /// The other side sends no more. In good order that is after all rows, which timely knows.
    closed: bool,
}

/// Where a connection leads, and who is told that it broke.
pub(super) struct End {
    pub process: usize,
    pub broke: Broke,
}

impl End {
    fn watch<T>(&self, mut used: impl FnMut() -> Result<T>) -> Result<T> {
        loop {
            match used() {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                used => return used.inspect_err(|error| (self.broke)(self.process, &error.to_string())),
            }
        }
    }
}

impl Wire {
    pub fn new(stream: TcpStream, end: End) -> Self {
        Self { stream, end: Arc::new(end), closed: false }
    }
}

impl Read for Wire {
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize> {
        let read = self.end.watch(|| self.stream.read(bytes))?;
        self.closed = read == 0 && !bytes.is_empty();
        Ok(read)
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        self.end.watch(|| self.stream.write(bytes))
    }

    fn flush(&mut self) -> Result<()> {
        self.end.watch(|| self.stream.flush())
    }
}

impl Stream for Wire {
    fn try_clone(&self) -> Result<Self> {
        Ok(Self { stream: self.stream.try_clone()?, end: Arc::clone(&self.end), closed: self.closed })
    }

    fn set_nonblocking(&self, nonblocking: bool) -> Result<()> {
        self.stream.set_nonblocking(nonblocking)
    }

    fn shutdown(&self, how: Shutdown) -> Result<()> {
        self.end.watch(|| self.stream.shutdown(how))
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if self.closed && std::thread::panicking() {
            (self.end.broke)(self.end.process, "the other side closed it");
        }
    }
}
