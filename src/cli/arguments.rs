//! What can be said on the command line.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use crate::layers::BATCH_EVENTS_MAX;
use crate::operators::Codec;
use crate::runtime::{KEEP_GENERATIONS, OnError};

const EXAMPLE: &str = "\
Example:
  lambdaflow ingest web_analytics --log /tmp/web access.log
  lambdaflow run web_analytics --log /tmp/web -w 2
  lambdaflow query hits --top 10";

/// Runs dataflows on a batch and a speed layer and serves exact answers from both.
#[derive(Parser)]
#[command(name = "lambdaflow", version, before_help = EXAMPLE, disable_help_flag = true, disable_help_subcommand = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub command: Command,
    /// Print help.
    #[arg(long, action = ArgAction::HelpShort, global = true)]
    help: Option<bool>,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Serve a dataflow's views over a log, and take events.
    #[command(before_help = "Example:\n  lambdaflow run web_analytics --log /tmp/web -w 2 --listen 127.0.0.1:7070")]
    Run(Run),
    /// Start all processes of a cluster on this machine, and start them again when one dies.
    ///
    /// What follows the options is the command, with its arguments: `run`, `audit --log`, `oracle` or `diff`. Process 0's results go to stdout, all
    /// else to stderr, each line under the number of its process. Ctrl-C stops all, a second one kills. Exit code: that of the
    /// process that failed first, 128 and the number of the signal if one ended it.
    #[command(
        before_help = "Example:\n  lambdaflow launch -n 4 -w 2 run web_analytics --log /tmp/web\n  lambdaflow launch -n 4 -w 2 audit web_analytics --log /tmp/web\n  lambdaflow launch -n 4 oracle nexmark"
    )]
    Launch(Launch),
    /// Append the events of a file to a log, or to a running server with --to.
    #[command(
        before_help = "Example:\n  lambdaflow ingest web_analytics --log /tmp/web --on-error skip --rejects /tmp/rejects access.log\n  lambdaflow generate web_analytics | lambdaflow ingest web_analytics --to http://127.0.0.1:7070 -"
    )]
    Ingest(Ingest),
    /// Read a view of a running server.
    #[command(before_help = "Example:\n  lambdaflow query hits --top 10\n  lambdaflow query visitors --key /index.html --format json")]
    Query(Query),
    /// Compute all views of a running server anew from the first event, and switch to them.
    #[command(before_help = "Example:\n  lambdaflow rebuild --to http://127.0.0.1:7070")]
    Rebuild(Rebuild),
    /// Compute all views in both layers and compare them: exit code 1 if they differ.
    #[command(before_help = "Example:\n  lambdaflow audit --to http://127.0.0.1:7070\n  lambdaflow audit web_analytics --log /tmp/web")]
    Audit(Audit),
    /// Print sample input for a dataflow.
    #[command(before_help = "Example:\n  lambdaflow generate web_analytics --events 100000 > /tmp/access.log")]
    Generate(Generate),
    /// Compare a dataflow's answers with those of SQL queries in DuckDB: exit code 1 if they differ.
    #[command(before_help = "Example:\n  lambdaflow oracle nexmark --events 1000000 -w 2")]
    Oracle(Oracle),
    /// Compare this program's answers with those of the newest generation on disk, at its frontier: exit code 1 if they differ.
    ///
    /// A server may be running. Ask before a changed program takes its place: what is printed is what the switch will change.
    #[command(before_help = "Example:\n  lambdaflow diff web_analytics --log /tmp/web")]
    Diff(Diff),
    /// Look at the generations that the batch layer left on disk, or go back to an older one.
    #[command(
        subcommand,
        before_help = "Example:\n  lambdaflow generations list /tmp/web\n  lambdaflow generations verify /tmp/web\n  lambdaflow generations rollback /tmp/web --to 7"
    )]
    Generations(GenerationsCommand),
    /// Look into a log.
    #[command(subcommand, before_help = "Example:\n  lambdaflow log verify /tmp/web\n  lambdaflow log cat /tmp/web --limit 10")]
    Log(LogCommand),
    /// List the dataflows of this program.
    List,
}

#[derive(Args)]
pub(crate) struct Run {
    /// Name of the dataflow; may be left out where there is one only.
    pub dataflow: Option<String>,
    /// Directory of the log; made if there is none.
    #[arg(long, value_name = "DIR")]
    pub log: PathBuf,
    #[command(flatten)]
    pub processes: Processes,
    /// Where to listen; port 0 takes a free one. In a cluster, the second process of a machine takes the next port, and so on.
    #[arg(long, default_value = "127.0.0.1:7070", value_name = "ADDR")]
    pub listen: SocketAddr,
    /// How often the current tick is closed: the freshness of answers.
    #[arg(long, default_value = "10ms", value_parser = duration, value_name = "TIME")]
    pub tick: Duration,
    /// Least time from one batch cycle to the next; 0 for none but on request.
    #[arg(long, default_value = "10s", value_parser = duration, value_name = "TIME")]
    pub batch_interval: Duration,
    /// How far back `as_of` can reach.
    #[arg(long, default_value = "5s", value_parser = duration, value_name = "TIME")]
    pub history: Duration,
    /// Generations that are kept on disk: the newest, and some to fall back to if a file is damaged.
    #[arg(long, default_value_t = KEEP_GENERATIONS, value_name = "N")]
    pub keep_generations: usize,
    /// Events that a batch takes in at once; a longer log is computed in several steps. Bounds memory.
    #[arg(long, default_value_t = BATCH_EVENTS_MAX, value_name = "N")]
    pub batch_events: u64,
    /// What an acknowledged append survives: a power cut, the end of the process, nothing.
    #[arg(long, default_value = "sync", value_name = "LEVEL")]
    pub durability: DurabilityArgument,
}

#[derive(Args)]
pub(crate) struct Launch {
    /// Processes to start.
    #[arg(short = 'n', long, value_parser = processes, value_name = "N")]
    pub processes: usize,
    /// Worker threads of each layer, in each process.
    #[arg(short = 'w', long, alias = "threads", value_parser = workers, value_name = "N")]
    pub workers: Option<usize>,
    /// How often in a row `run` is started again; counted anew after a minute of serving. Codes 2, 3, 5 and 6 end it for good.
    #[arg(long, default_value_t = 10, value_name = "N")]
    pub restarts: u32,
    /// How long processes that are told to stop may take; then they are killed.
    #[arg(long, default_value = "10s", value_parser = duration, value_name = "TIME")]
    pub stop_timeout: Duration,
    /// What each process is to do, with its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_names = ["COMMAND", "ARGUMENTS"])]
    pub command: Vec<OsString>,
}

/// Who computes. The short forms are those of all timely programs.
#[derive(Args, Clone)]
pub(crate) struct Processes {
    /// Worker threads of each layer, in each process.
    #[arg(short = 'w', long, alias = "threads", default_value_t = 1, value_parser = workers, value_name = "N")]
    pub workers: usize,
    /// Processes of the cluster.
    #[arg(short = 'n', long, default_value_t = 1, value_parser = processes, value_name = "N")]
    pub processes: usize,
    /// The number of this process, from 0.
    #[arg(short = 'p', long, default_value_t = 0, value_name = "P")]
    pub process: usize,
    /// File with the address of each process, host:port, one a line; without it they are on this machine, from port 2101 on.
    #[arg(short = 'h', long, requires = "processes", value_name = "FILE")]
    pub hostfile: Option<PathBuf>,
    /// How long to wait for the other processes at the start.
    #[arg(long, default_value = "60s", value_parser = duration, value_name = "TIME")]
    pub connect_timeout: Duration,
    /// How long another process may be silent until it counts as lost; then all stop with exit code 4.
    #[arg(long, default_value = "10s", value_parser = peer_timeout, value_name = "TIME")]
    pub peer_timeout: Duration,
    /// How rows of our operators are written that go to another process: columnar, bincode or abomonation (see the documentation
    /// of `Codec`). Raw differential code, `iterate` and graphs always use bincode.
    #[arg(long, default_value_t, value_name = "CODEC")]
    pub exchange: Codec,
    /// Let the cluster's address, and --listen, be ones that other machines reach. There is no authentication.
    #[arg(long)]
    pub insecure: bool,
    /// What tells this cluster from others; the same for all processes.
    #[arg(
        long,
        env = "LAMBDAFLOW_CLUSTER_TOKEN",
        default_value = "",
        hide_env_values = true,
        hide_default_value = true,
        value_name = "TOKEN"
    )]
    pub cluster_token: String,
}

#[derive(Args)]
pub(crate) struct Ingest {
    /// Name of the dataflow, then the file (`-` for standard input). Where there is one dataflow only, the file alone.
    #[arg(required = true, num_args = 1..=2, value_names = ["DATAFLOW", "FILE"])]
    operands: Vec<String>,
    #[arg(skip)]
    pub dataflow: Option<String>,
    /// Directory of the log; made if there is none.
    #[arg(long, value_name = "DIR", required_unless_present = "to")]
    pub log: Option<PathBuf>,
    /// A running server to append to instead.
    #[arg(long, value_name = "URL", conflicts_with = "log")]
    pub to: Option<String>,
    /// What to do about a line that is no event.
    #[arg(long, default_value = "stop")]
    pub on_error: OnError,
    /// Number the batches of the file under this name: whatever is ingested again under it is stored once.
    #[arg(long, value_name = "NAME")]
    pub producer: Option<String>,
    /// Write lines that are no events to this file.
    #[arg(long, value_name = "FILE")]
    pub rejects: Option<PathBuf>,
    /// What an acknowledged append survives.
    #[arg(long, default_value = "sync", value_name = "LEVEL")]
    pub durability: DurabilityArgument,
    /// How to print the result.
    #[arg(long, default_value = "text")]
    pub format: Format,
}

impl Ingest {
    /// The file, and the dataflow's name if one was given.
    pub fn file(&self) -> &str {
        self.operands.last().map_or("-", |file| file)
    }

    /// Moves the name out of the operands.
    pub fn resolve(&mut self) {
        if self.operands.len() == 2 {
            self.dataflow = Some(self.operands[0].clone());
        }
    }
}

#[derive(Args)]
pub(crate) struct Server {
    /// The server to ask.
    #[arg(long, default_value = "http://127.0.0.1:7070", value_name = "URL", env = "LAMBDAFLOW_TO")]
    pub to: String,
}

#[derive(Args)]
#[command(group(clap::ArgGroup::new("rows").args(["key", "prefix", "top"]).multiple(false)))]
pub(crate) struct Query {
    /// Name of the view; without one, the views are listed.
    pub view: Option<String>,
    /// Rows of this key, as JSON; may be repeated. A word that is not JSON is taken as a string.
    #[arg(long, value_name = "JSON")]
    pub key: Vec<String>,
    /// Rows from this key on.
    #[arg(long, value_name = "JSON", conflicts_with_all = ["key", "prefix", "top"])]
    pub from: Option<String>,
    /// Rows before this key.
    #[arg(long, value_name = "JSON", conflicts_with_all = ["key", "prefix", "top"])]
    pub until: Option<String>,
    /// Rows whose key begins like this.
    #[arg(long, value_name = "JSON")]
    pub prefix: Option<String>,
    /// The rows with the N greatest values.
    #[arg(long, value_name = "N")]
    pub top: Option<u64>,
    /// Most rows to print.
    #[arg(long)]
    pub limit: Option<u64>,
    /// Answer at this tick.
    #[arg(long, value_name = "TICK")]
    pub as_of: Option<u64>,
    /// Wait until this tick is complete.
    #[arg(long, value_name = "TICK")]
    pub at_least: Option<u64>,
    /// How long to wait.
    #[arg(long, value_parser = duration, value_name = "TIME")]
    pub timeout: Option<Duration>,
    /// How to print the rows.
    #[arg(long, default_value = "text")]
    pub format: Format,
    #[command(flatten)]
    pub server: Server,
}

#[derive(Args)]
pub(crate) struct Rebuild {
    #[command(flatten)]
    pub server: Server,
    /// How to print the result.
    #[arg(long, default_value = "text")]
    pub format: Format,
}

#[derive(Args)]
pub(crate) struct Audit {
    /// Name of the dataflow, with --log.
    pub dataflow: Option<String>,
    /// Audit this log, which no server may have open; without it, a running server is asked.
    #[arg(long, value_name = "DIR")]
    pub log: Option<PathBuf>,
    #[command(flatten)]
    pub processes: Processes,
    #[command(flatten)]
    pub server: Server,
    /// How to print the result.
    #[arg(long, default_value = "text")]
    pub format: Format,
}

#[derive(Args)]
pub(crate) struct Generate {
    /// Name of the dataflow.
    pub dataflow: Option<String>,
    /// How many lines.
    #[arg(long, default_value_t = 100_000)]
    pub events: u64,
    /// What the lines are made from; the same seed makes the same lines.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

#[derive(Args)]
pub(crate) struct Oracle {
    /// Name of the dataflow.
    pub dataflow: Option<String>,
    /// How many events are generated.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub events: u64,
    /// What the events are made from, and where the layers are cut.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    #[command(flatten)]
    pub processes: Processes,
    /// How to print the result.
    #[arg(long, default_value = "text")]
    pub format: Format,
}

#[derive(Args)]
pub(crate) struct Diff {
    /// Name of the dataflow; may be left out where there is one only.
    pub dataflow: Option<String>,
    /// Directory of the log.
    #[arg(long, value_name = "DIR")]
    pub log: PathBuf,
    #[command(flatten)]
    pub processes: Processes,
    /// Print at most this many rows of each view.
    #[arg(long, default_value_t = 100)]
    pub limit: usize,
    /// How to print the result.
    #[arg(long, default_value = "text")]
    pub format: Format,
}

#[derive(Subcommand)]
pub(crate) enum GenerationsCommand {
    /// List them, newest first.
    List(Generations),
    /// Check every byte of their files: exit code 3 if anything is damaged.
    Verify(Generations),
    /// Drop the newer ones, so that the next start goes on from an older one and the log. No server may run.
    Rollback(Rollback),
}

#[derive(Args)]
pub(crate) struct Generations {
    /// Directory of the log.
    pub dir: PathBuf,
    /// Only those of this dataflow.
    #[arg(long)]
    pub dataflow: Option<String>,
    /// How to print the result.
    #[arg(long, default_value = "text")]
    pub format: Format,
}

#[derive(Args)]
pub(crate) struct Rollback {
    /// Directory of the log.
    pub dir: PathBuf,
    /// The dataflow, where the log has generations of several.
    #[arg(long)]
    pub dataflow: Option<String>,
    /// The newest generation to keep; 0 keeps none, and the next start computes everything from the log.
    #[arg(long, value_name = "ID")]
    pub to: u64,
}

#[derive(Subcommand)]
pub(crate) enum LogCommand {
    /// Say what is in a log.
    Info(LogInfo),
    /// Check every byte of a log: exit code 3 if anything is damaged.
    Verify(LogVerify),
    /// Print the events of a log as JSON, one a line.
    Cat(LogCat),
    /// Remove events for good; exit code 1 if none match.
    #[command(
        before_help = "Example:\n  lambdaflow log redact /tmp/web --where 'host = 10.0.0.7' --where 'status >= 400' --why 'request 81' --dry-run"
    )]
    Redact(LogRedact),
    /// Say what was redacted, when and why.
    Redactions(LogInfo),
    /// Copy a log into a new one: current format and event type, large segments.
    Rewrite(LogCopy),
    /// Copy what can be read of a damaged log into a new one: exit code 3 if anything is lost.
    Salvage(LogCopy),
}

#[derive(Args)]
pub(crate) struct LogRedact {
    /// Directory of the log, which no server may have open.
    pub dir: PathBuf,
    /// Name of the dataflow whose events these are; may be left out where there is one only.
    #[arg(long)]
    pub dataflow: Option<String>,
    /// FIELD OPERATOR VALUE on an event as `log cat` prints it; operators are = != < <= > >= ^= (begins with). If repeated, all
    /// must hold. It is kept with the reason: name people by number, not by name.
    #[arg(long = "where", value_name = "CONDITION", required = true)]
    pub conditions: Vec<String>,
    /// The reason, which is kept.
    #[arg(long, value_name = "TEXT")]
    pub why: String,
    /// Say how many events match, and change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// How to print the result.
    #[arg(long, default_value = "text")]
    pub format: Format,
}

#[derive(Args)]
pub(crate) struct LogCopy {
    /// Directory of the log, which no server may have open. Nothing in it is changed.
    pub dir: PathBuf,
    /// Directory of the new log, absent or empty.
    pub target: PathBuf,
    /// Name of the dataflow whose events these are; may be left out where there is one only.
    #[arg(long)]
    pub dataflow: Option<String>,
    /// How to print the result.
    #[arg(long, default_value = "text")]
    pub format: Format,
}

#[derive(Args)]
pub(crate) struct LogInfo {
    /// Directory of the log.
    pub dir: PathBuf,
    /// How to print the result.
    #[arg(long, default_value = "text")]
    pub format: Format,
}

#[derive(Args)]
pub(crate) struct LogVerify {
    /// Directory of the log.
    pub dir: PathBuf,
    /// How to print the result.
    #[arg(long, default_value = "text")]
    pub format: Format,
}

#[derive(Args)]
pub(crate) struct LogCat {
    /// Directory of the log.
    pub dir: PathBuf,
    /// Name of the dataflow whose events these are; may be left out where there is one only.
    #[arg(long)]
    pub dataflow: Option<String>,
    /// Print at most this many.
    #[arg(long)]
    pub limit: Option<u64>,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// What an acknowledgement promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DurabilityArgument {
    /// Survives a power cut.
    Sync,
    /// Survives the end of the process.
    Os,
    /// Survives nothing.
    Memory,
}

impl From<DurabilityArgument> for crate::log::Durability {
    fn from(durability: DurabilityArgument) -> Self {
        match durability {
            DurabilityArgument::Sync => Self::Sync,
            DurabilityArgument::Os => Self::Os,
            DurabilityArgument::Memory => Self::Memory,
        }
    }
}

/// Most workers of a layer.
const WORKERS_MAX: usize = 256;

/// Most processes of a cluster.
const PROCESSES_MAX: usize = 256;

fn processes(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(processes @ 1..=PROCESSES_MAX) => Ok(processes),
        _ => Err(format!("between 1 and {PROCESSES_MAX} processes")),
    }
}

fn workers(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(workers @ 1..=WORKERS_MAX) => Ok(workers),
        _ => Err(format!("between 1 and {WORKERS_MAX} workers")),
    }
}

/// Shorter, and a process that is not asleep would be taken for one that hangs.
const PEER_TIMEOUT_MIN: Duration = Duration::from_millis(500);

fn peer_timeout(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        timeout if timeout >= PEER_TIMEOUT_MIN => Ok(timeout),
        _ => Err(format!("at least {} ms: processes say every 50 ms that they are there", PEER_TIMEOUT_MIN.as_millis())),
    }
}

/// `250ms`, `10s`, `5m`, `1h`, or `0`.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| "a number with a unit: 250ms, 10s, 5m, 1h".to_owned())?;
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "" if number == 0 => 1,
        _ => return Err("a number with a unit: 250ms, 10s, 5m, 1h".to_owned()),
    };
    number.checked_mul(milliseconds).map(Duration::from_millis).ok_or_else(|| "too long".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        for wrong in ["", "10", "s", "-1s", "1.5s", "99999999999999999999h"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn threads_are_workers() {
        let arguments =
            Arguments::try_parse_from(["lambdaflow", "run", "x", "--log", "d", "--threads", "3"]).unwrap_or_else(|error| panic!("{error}"));
        assert!(matches!(arguments.command, Command::Run(Run { processes: Processes { workers: 3, .. }, .. })));
    }
}
