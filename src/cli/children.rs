//! The processes that `launch` starts: what they print, passed on in whole lines, and how they end.

use std::fmt::{Display, Formatter};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, unbounded};
use rustix::process::{Pid, Signal, kill_process};

/// Bytes of a line that are kept together; a longer one is printed in parts.
const LINE_BYTES_MAX: u64 = 1 << 20;
/// How long to wait for what is left in the pipes of processes that have ended: something that they started may hold them open.
const DRAIN: Duration = Duration::from_secs(1);
/// What a server prints before its address.
const SERVING: &str = "serving on ";
/// What a process says that found the address it was given for the others in use. Only that: what it serves on may be in use, too.
const ADDRESS_TAKEN: &str = " of the cluster listens there";

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Code(u8),
    Signal(i32),
}

impl End {
    /// As shells give it: 128 more than the number of a signal.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128_u8.saturating_add(u8::try_from(signal).unwrap_or(u8::MAX)),
        }
    }

    /// It ended because it was asked to.
    pub fn is_termination(self) -> bool {
        self == Self::Signal(Signal::TERM.as_raw())
    }
}

impl From<ExitStatus> for End {
    fn from(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Code(code as u8),
            (None, signal) => Self::Signal(signal.unwrap_or_default()),
        }
    }
}

impl Display for End {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "ended with exit code {code}"),
            Self::Signal(signal) => write!(f, "ended by signal {signal}"),
        }
    }
}

/// Processes by number. Dropped, they are killed: only ever these, which nobody else waits for.
pub(super) struct Children {
    children: Vec<(Child, Option<End>)>,
    addresses: Receiver<(usize, String)>,
    address_taken: Arc<AtomicBool>,
    /// Nothing is ever sent: it is disconnected when all that they printed was passed on.
    printed: Receiver<()>,
}

impl Children {
    /// Starts them, each in a process group of its own: a terminal's Ctrl-C is for who passes it on.
    pub fn start(commands: Vec<Command>) -> std::io::Result<Self> {
        let ((serves, addresses), (printing, printed)) = (unbounded(), unbounded());
        let said = Said { serves, address_taken: Arc::default() };
        let mut started = Self { children: Vec::new(), addresses, address_taken: Arc::clone(&said.address_taken), printed };
        for (process, mut command) in commands.into_iter().enumerate() {
            command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = command.spawn()?;
            let (out, err) = (child.stdout.take().expect("a pipe"), child.stderr.take().expect("a pipe"));
            started.children.push((child, None));
            let printer = |name: &str| std::thread::Builder::new().name(format!("{name}-{process}"));
            let (done, said) = (printing.clone(), said.clone());
            printer("err").spawn(move || {
                pass_on(process, err, Some(&said));
                drop(done);
            })?;
            let done = printing.clone();
            printer("out").spawn(move || {
                if process == 0 {
                    print_results(out)
                } else {
                    pass_on(process, out, None)
                }
                drop(done);
            })?;
        }
        Ok(started)
    }

    /// Those that have ended since the last look.
    pub fn ended(&mut self) -> std::io::Result<Vec<(usize, End)>> {
        let mut ended = Vec::new();
        for (process, (child, end)) in self.children.iter_mut().enumerate() {
            if end.is_none() {
                *end = child.try_wait()?.map(End::from);
                ended.extend(end.map(|end| (process, end)));
            }
        }
        Ok(ended)
    }

    /// Where servers that were not named yet say that they serve.
    pub fn serving(&self) -> impl Iterator<Item = (usize, String)> {
        self.addresses.try_iter()
    }

    /// Those that run.
    pub fn running(&self) -> impl Iterator<Item = usize> {
        self.children.iter().enumerate().filter(|(_, (_, end))| end.is_none()).map(|(process, _)| process)
    }

    /// Sends a signal to all that run.
    pub fn signal(&self, signal: Signal) {
        for process in self.running() {
            // Its number is its own until it was waited for, which is done here only. It may have ended, though.
            let _ = kill_process(Pid::from_child(&self.children[process].0), signal);
        }
    }

    /// Waits until what they printed was passed on. They have ended. Whether one said that its address for the others was taken.
    pub fn finish(self) -> bool {
        let _ = self.printed.recv_timeout(DRAIN);
        self.address_taken.load(Ordering::Acquire)
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        for (child, _) in self.children.iter_mut().filter(|(_, end)| end.is_none()) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What is found out from what processes print.
#[derive(Clone)]
struct Said {
    serves: Sender<(usize, String)>,
    address_taken: Arc<AtomicBool>,
}

impl Said {
    fn note(&self, process: usize, line: &[u8]) {
        let Ok(line) = std::str::from_utf8(line) else { return };
        if let Some(address) = line.strip_prefix(SERVING) {
            let _ = self.serves.send((process, address.to_owned()));
        }
        if line.starts_with("  hint: ") && line.contains(ADDRESS_TAKEN) {
            self.address_taken.store(true, Ordering::Release);
        }
    }
}

/// The results of the command: process 0 prints them for all.
fn print_results(mut out: impl Read) {
    // If nobody reads them any more, the process finds its pipe closed, too.
    let mut stdout = std::io::stdout();
    let _ = std::io::copy(&mut out, &mut stdout).and_then(|_| stdout.flush());
}

/// Everything else goes to stderr, under the number of the process. Each line is one write.
fn pass_on(process: usize, from: impl Read, said: Option<&Said>) {
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    while (&mut from).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        let mut printed = format!("[p{process}] ").into_bytes();
        printed.extend(text);
        printed.push(b'\n');
        // Whether or not somebody reads it, the process must not wait for it.
        let _ = std::io::stderr().lock().write_all(&printed);
        if let Some(said) = said {
            said.note(process, text);
        }
        line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    fn ends(mut children: Children) -> Vec<End> {
        let mut ends = std::collections::BTreeMap::new();
        while children.running().next().is_some() {
            ends.extend(children.ended().expect("children of ours"));
            std::thread::yield_now();
        }
        children.finish();
        ends.into_values().collect()
    }

    #[test]
    fn ends_are_told_apart() {
        let children = Children::start(vec![shell("exit 6"), shell("kill -9 $$"), shell("true")]).expect("there is a shell");
        let ends = ends(children);
        assert_eq!(ends, [End::Code(6), End::Signal(9), End::Code(0)]);
        assert_eq!(ends.iter().map(|end| end.exit_code()).collect::<Vec<_>>(), [6, 137, 0]);
    }

    #[test]
    fn an_address_for_the_others_that_was_taken_is_told_from_one_to_serve_on() {
        let taken = crate::cluster::ClusterError::InUse { address: "127.0.0.1:12101".to_owned(), process: 1 };
        for (message, expected) in [
            (format!("error: {taken}"), true),
            ("error: 127.0.0.1:7070 is in use by another process\n  hint: --listen 127.0.0.1:0 takes a free port".to_owned(), false),
        ] {
            let mut children = Children::start(vec![shell(&format!("echo '{message}' >&2; exit 6"))]).expect("there is a shell");
            while children.ended().expect("a child of ours").is_empty() {
                std::thread::yield_now();
            }
            assert_eq!(children.finish(), expected, "{message}");
        }
    }

    #[test]
    fn addresses_are_found_in_what_is_printed() {
        let children =
            Children::start(vec![shell("echo serving on nothing; echo serving on http://127.0.0.1:1 >&2")]).expect("there is a shell");
        let addresses = children.addresses.clone();
        ends(children);
        assert_eq!(addresses.try_iter().collect::<Vec<_>>(), [(0, "http://127.0.0.1:1".to_owned())]);
    }

    #[test]
    fn a_signal_reaches_those_that_run() {
        let children = Children::start(vec![shell("true"), shell("exec sleep 600")]).expect("there is a shell");
        children.signal(Signal::TERM);
        assert!(ends(children)[1].is_termination());
    }
}
