//! Names the durable steps, so that a test can kill the process at each of them.
//!
//! `LAMBDAFLOW_CRASH_AT=<step>:<n>` sends SIGKILL to the process itself when it reaches the step for the n-th time (from 1).
//! Compiled into debug builds only.

/// A point beside a durable step.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Step {
    /// A group is formed, nothing of it is written.
    AppendBeforeWrite,
    /// A group is written and not synced.
    AppendAfterWrite,
    /// As before, immediately before the sync.
    AppendBeforeSync,
    /// A group is synced and nobody knows.
    AppendAfterSync,
    /// A new active segment is created, its name not synced.
    CreateBeforeDirSync,
    /// A new active segment is usable.
    CreateAfterDirSync,
    /// The rewritten segment has all blocks and no footer.
    SealBeforeFooter,
    /// The rewritten segment has its footer and is not synced.
    SealAfterFooter,
    /// The rewritten segment is synced under its temporary name.
    SealBeforeRename,
    /// The rewritten segment has its name, which is not synced.
    SealBeforeDirSync,
    /// Both the active and the sealed segment exist.
    SealBeforeRemove,
    /// The active segment is removed.
    SealAfterRemove,
    /// The mark is about to be rewritten.
    MarkBeforeWrite,
    /// The mark is rewritten.
    MarkAfterWrite,
    /// A torn tail is about to be set aside.
    TornBeforeCopy,
    /// A torn tail is set aside and not cut.
    TornAfterCopy,
    /// Rewritten segments stand beside those with the events that are to go.
    RedactBeforeCommit,
    /// The redaction counts, and no segment has taken its place.
    RedactAfterCommit,
    /// All segments have taken their places, and the redaction is still said to be pending.
    RedactBeforeSettle,
    /// The redaction is done.
    RedactAfterSettle,
    /// A file of runs has all chunks and no footer.
    RunsBeforeFooter,
    /// A file of runs is whole and not synced.
    RunsBeforeSync,
    /// A file of runs is synced, and no manifest names it.
    RunsAfterSync,
    /// All files of a generation are durable, and nothing names them.
    ManifestBeforeWrite,
    /// A generation is committed.
    ManifestAfterWrite,
    /// Old manifests are gone, the files that only they named are not.
    ManifestBeforeRemove,
    /// What is no longer kept is gone.
    ManifestAfterRemove,
    /// A generation is committed and not served.
    HandoverBeforeAdopt,
    /// A speed graph on it has caught up; the one before is still served.
    HandoverBeforeSwitch,
    /// It is served.
    HandoverAfterSwitch,
}

impl Step {
    /// All of them, for tests.
    pub const ALL: [Step; 30] = [
        Step::AppendBeforeWrite,
        Step::AppendAfterWrite,
        Step::AppendBeforeSync,
        Step::AppendAfterSync,
        Step::CreateBeforeDirSync,
        Step::CreateAfterDirSync,
        Step::SealBeforeFooter,
        Step::SealAfterFooter,
        Step::SealBeforeRename,
        Step::SealBeforeDirSync,
        Step::SealBeforeRemove,
        Step::SealAfterRemove,
        Step::MarkBeforeWrite,
        Step::MarkAfterWrite,
        Step::TornBeforeCopy,
        Step::TornAfterCopy,
        Step::RedactBeforeCommit,
        Step::RedactAfterCommit,
        Step::RedactBeforeSettle,
        Step::RedactAfterSettle,
        Step::RunsBeforeFooter,
        Step::RunsBeforeSync,
        Step::RunsAfterSync,
        Step::ManifestBeforeWrite,
        Step::ManifestAfterWrite,
        Step::ManifestBeforeRemove,
        Step::ManifestAfterRemove,
        Step::HandoverBeforeAdopt,
        Step::HandoverBeforeSwitch,
        Step::HandoverAfterSwitch,
    ];

    /// The name used in `LAMBDAFLOW_CRASH_AT`.
    pub fn name(self) -> &'static str {
        match self {
            Step::AppendBeforeWrite => "append.before_write",
            Step::AppendAfterWrite => "append.after_write",
            Step::AppendBeforeSync => "append.before_sync",
            Step::AppendAfterSync => "append.after_sync",
            Step::CreateBeforeDirSync => "segment_create.before_dir_sync",
            Step::CreateAfterDirSync => "segment_create.after_dir_sync",
            Step::SealBeforeFooter => "seal.before_footer",
            Step::SealAfterFooter => "seal.after_footer",
            Step::SealBeforeRename => "seal.before_rename",
            Step::SealBeforeDirSync => "seal.before_dir_sync",
            Step::SealBeforeRemove => "seal.before_remove",
            Step::SealAfterRemove => "seal.after_remove",
            Step::MarkBeforeWrite => "mark.before_write",
            Step::MarkAfterWrite => "mark.after_write",
            Step::TornBeforeCopy => "torn.before_copy",
            Step::TornAfterCopy => "torn.after_copy",
            Step::RedactBeforeCommit => "redact.before_commit",
            Step::RedactAfterCommit => "redact.after_commit",
            Step::RedactBeforeSettle => "redact.before_settle",
            Step::RedactAfterSettle => "redact.after_settle",
            Step::RunsBeforeFooter => "runs.before_footer",
            Step::RunsBeforeSync => "runs.before_sync",
            Step::RunsAfterSync => "runs.after_sync",
            Step::ManifestBeforeWrite => "manifest.before_write",
            Step::ManifestAfterWrite => "manifest.after_write",
            Step::ManifestBeforeRemove => "manifest.before_remove",
            Step::ManifestAfterRemove => "manifest.after_remove",
            Step::HandoverBeforeAdopt => "handover.before_adopt",
            Step::HandoverBeforeSwitch => "handover.before_switch",
            Step::HandoverAfterSwitch => "handover.after_switch",
        }
    }
}

/// Marks that the process reached `step`.
#[cfg(debug_assertions)]
pub(crate) fn reach(step: Step) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    static CRASH_AT: OnceLock<Option<(String, u64)>> = OnceLock::new();
    static REACHED: AtomicU64 = AtomicU64::new(0);
    let crash_at = CRASH_AT.get_or_init(|| {
        let wanted = std::env::var("LAMBDAFLOW_CRASH_AT").ok()?;
        let (name, count) = wanted.rsplit_once(':')?;
        Some((name.to_string(), count.parse().ok()?))
    });
    let Some((name, count)) = crash_at else {
        return;
    };
    if name == step.name() && REACHED.fetch_add(1, Ordering::Relaxed) + 1 == *count {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

/// Release builds have no failpoints.
#[cfg(not(debug_assertions))]
pub(crate) fn reach(_step: Step) {}
