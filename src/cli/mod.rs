//! The command line that every program gets.
//!
//! Results go to stdout, everything else to stderr. Exit codes: 0 ok, 1 the answer is "no", 2 usage, 3 data damaged,
//! 4 peer lost, 5 storage failed or full, 6 in use.

mod arguments;
mod children;
mod client;
mod cluster;
mod diff;
mod generations;
mod ingest;
mod launch;
mod log;
mod oracle;
mod run;
mod runnable;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use crate::layers::Dataflow;
use crate::log::{Event, LogError};
use crate::runtime::{DiffError, Program, StartError};

pub use runnable::Runnable;

use arguments::{Arguments, Command};

/// A command that did not succeed: what to say, and the exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    code: u8,
}

impl Failure {
    fn new(message: impl ToString, code: u8) -> Self {
        Self { message: message.to_string(), code }
    }

    fn usage(message: impl ToString) -> Self {
        Self::new(message, 2)
    }
}

impl From<LogError> for Failure {
    fn from(error: LogError) -> Self {
        match error {
            // `log cat` writes to whoever reads the output.
            LogError::Storage { source, .. } if source.kind() == std::io::ErrorKind::BrokenPipe => {
                std::io::Error::from(source.kind()).into()
            }
            error => Self::new(&error, error.exit_code()),
        }
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        Self::new(&error, error.exit_code())
    }
}

impl From<DiffError> for Failure {
    fn from(error: DiffError) -> Self {
        Self::new(&error, error.exit_code())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        // Whoever read the output has seen enough.
        let code = if error.kind() == std::io::ErrorKind::BrokenPipe { 0 } else { 5 };
        Self::new(error, code)
    }
}

/// The whole of an author's `main`: gives a dataflow every subcommand.
///
/// ```no_run
/// use lambdaflow::prelude::*;
///
/// #[derive(Clone, Debug, Serialize, Deserialize, Columnar)]
/// struct Visit { path: String }
/// impl Event for Visit {
///     const NAME: &'static str = "visits.Visit";
///     const VERSION: u32 = 1;
///     const FIELDS: &'static [&'static str] = &["path: String"];
/// }
///
/// fn visits(events: Events<'_, Visit>, views: &mut Views) {
///     views.publish("hits", events.aggregate::<String, Count>(|visit, groups| groups.add(visit.path, Count::one())));
/// }
///
/// fn main() -> std::process::ExitCode {
///     lambdaflow::main("visits", visits)
/// }
/// ```
pub fn main<E: Event>(name: &str, dataflow: impl Dataflow<E>) -> ExitCode {
    main_of(vec![Box::new(Program::new(name, dataflow))])
}

/// [`main`] for programs with more to say, or for several: the command line then takes a dataflow's name.
pub fn main_of(programs: Vec<Box<dyn Runnable>>) -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are answers, not failures.
            let code = if error.use_stderr() { 2 } else { 0 };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_target(false)
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_env("LAMBDAFLOW_LOG").unwrap_or_else(|_| "warn".into()))
        .init();
    survive_file_size_limit();
    let ended = launch::end_with_launcher().and_then(|()| carry_out(arguments.command, &programs));
    match ended {
        Ok(code) => ExitCode::from(code),
        Err(Failure { code: 0, .. }) => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = writeln!(std::io::stderr(), "error: {}", failure.message);
            ExitCode::from(failure.code)
        }
    }
}

/// Makes a write over `ulimit -f` fail, as any write can, instead of ending the process. A handler does that, and stays when
/// the runtime that it came with is gone. Where there can be none, the signal ends the process as before.
fn survive_file_size_limit() {
    let signal = tokio::signal::unix::SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw());
    if let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_io().build() {
        let _entered = runtime.enter();
        drop(tokio::signal::unix::signal(signal));
    }
}

fn carry_out(command: Command, programs: &[Box<dyn Runnable>]) -> Result<u8, Failure> {
    match command {
        Command::Run(run) => find(programs, run.dataflow.as_deref())?.run(&run),
        Command::Launch(launch) => launch::launch(&launch, programs),
        Command::Ingest(mut ingest) => {
            ingest.resolve();
            find(programs, ingest.dataflow.as_deref())?.ingest(&ingest)
        }
        Command::Query(query) => client::query(&query),
        Command::Rebuild(rebuild) => client::rebuild(&rebuild),
        Command::Audit(audit) if audit.log.is_some() => find(programs, audit.dataflow.as_deref())?.audit(&audit),
        Command::Audit(audit) => client::audit(&audit.server, audit.format),
        Command::Generate(generate) => find(programs, generate.dataflow.as_deref())?.generate(&generate),
        Command::Oracle(oracle) => find(programs, oracle.dataflow.as_deref())?.oracle(&oracle),
        Command::Diff(diff) => find(programs, diff.dataflow.as_deref())?.diff(&diff),
        Command::Generations(command) => generations::generations(&command),
        Command::Log(command) => match command {
            arguments::LogCommand::Info(info) => log::info(&info),
            arguments::LogCommand::Verify(verify) => log::verify(&verify),
            arguments::LogCommand::Cat(cat) => find(programs, cat.dataflow.as_deref())?.cat(&cat),
            arguments::LogCommand::Redact(redact) => find(programs, redact.dataflow.as_deref())?.redact(&redact),
            arguments::LogCommand::Redactions(list) => log::redactions(&list),
            arguments::LogCommand::Rewrite(copy) => find(programs, copy.dataflow.as_deref())?.rewrite(&copy),
            arguments::LogCommand::Salvage(copy) => find(programs, copy.dataflow.as_deref())?.salvage(&copy),
        },
        Command::List => {
            let mut out = std::io::stdout().lock();
            for program in programs {
                writeln!(out, "{:<20} {}", program.name(), program.summary())?;
            }
            Ok(0)
        }
    }
}

/// The program called `name`; a binary with one program needs no name.
fn find<'a>(programs: &'a [Box<dyn Runnable>], name: Option<&str>) -> Result<&'a dyn Runnable, Failure> {
    let known = || programs.iter().map(|program| program.name()).collect::<Vec<_>>().join(", ");
    match (name, programs) {
        (None, [only]) => Ok(&**only),
        (None, _) => Err(Failure::usage(format!("which dataflow?\n  hint: {}", known()))),
        (Some(name), _) => programs
            .iter()
            .find(|program| program.name() == name)
            .map(|program| &**program)
            .ok_or_else(|| Failure::usage(format!("there is no dataflow `{name}`\n  hint: {}", known()))),
    }
}
