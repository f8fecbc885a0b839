//! Tools of the machine, and file systems that go with the test.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Why a test cannot run here.
#[derive(Debug)]
pub enum Lack {
    /// A program is not installed. Where `LAMBDAFLOW_REQUIRE_FAULT_TOOLS=1`, that is a failure.
    Tool(String),
    /// The kernel, or the rights of this process, do not offer it. No package would change that.
    Kernel(String),
}

/// Says that a test cannot run here.
pub fn skip(name: &str, lack: &Lack) {
    let (Lack::Tool(reason) | Lack::Kernel(reason)) = lack;
    println!("SKIPPED {name}: {reason}");
    let required = std::env::var("LAMBDAFLOW_REQUIRE_FAULT_TOOLS").as_deref() == Ok("1");
    assert!(!(required && matches!(lack, Lack::Tool(_))), "{name} must run here: {reason}");
}

/// Unwraps what a test needs, or skips the test.
macro_rules! needs {
    ($name:expr, $needed:expr) => {
        match $needed {
            Ok(needed) => needed,
            Err(lack) => return $crate::tools::skip($name, &lack),
        }
    };
}
pub(crate) use needs;

/// Whether programs are installed.
pub fn installed(programs: &[&str]) -> Result<(), Lack> {
    for program in programs {
        // None of them does anything when asked for its version; some know no such question, and end with an error.
        if Command::new(program).arg("--version").output().is_err() {
            return Err(Lack::Tool(format!("`{program}` is not installed")));
        }
    }
    Ok(())
}

/// Whether strace is installed and may trace.
pub fn strace() -> Result<(), Lack> {
    installed(&["strace"])?;
    let traced = Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).output();
    match traced {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(Lack::Kernel(format!("no tracing: {}", String::from_utf8_lossy(&output.stderr).trim()))),
        Err(error) => Err(Lack::Tool(error.to_string())),
    }
}

/// Runs a tool; its complaint if it fails.
pub fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(arguments).output().map_err(|error| format!("{program}: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(format!("{program}: {}", text(&output.stderr))) }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// A place in memory where there is one: kills and mounts lose nothing there that a disk would keep.
pub fn temporary() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a directory")
}

/// Something mounted by this test, and unmounted with it.
#[derive(Debug)]
pub struct Mount {
    pub at: PathBuf,
}

impl Mount {
    pub fn new(at: &Path, arguments: &[&str]) -> Result<Self, Lack> {
        installed(&["mount", "umount"])?;
        std::fs::create_dir_all(at).expect("a directory");
        let arguments: Vec<&str> = arguments.iter().copied().chain([text(at)]).collect();
        run("mount", &arguments).map_err(Lack::Kernel)?;
        Ok(Mount { at: at.to_path_buf() })
    }

    pub fn tmpfs(at: &Path, kib: u64) -> Result<Self, Lack> {
        Mount::new(at, &["-t", "tmpfs", "-o", &format!("size={kib}k"), "lambdaflow-test"])
    }

    pub fn grow_tmpfs(&self, kib: u64) {
        run("mount", &["-o", &format!("remount,size={kib}k"), text(&self.at)]).expect("it can grow");
    }

    /// Unmounts for good: nobody may use it any more. A child that another test is just starting holds copies of our open
    /// files until it has replaced itself.
    pub fn end(self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while let Err(reason) = run("umount", &[text(&self.at)]) {
            assert!(reason.contains("busy") && Instant::now() < deadline, "nobody uses it: {reason}");
            std::thread::sleep(Duration::from_millis(5));
        }
        std::mem::forget(self);
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: after a panic, a child or an open file may still be there.
        let _ = run("umount", &["-l", text(&self.at)]);
    }
}

/// A file that holds an ext4 file system, to be mounted by a loop device.
pub struct Image {
    pub file: PathBuf,
    mkfs: Vec<&'static str>,
}

impl Image {
    pub fn new(file: &Path, kib: u64, mkfs: &[&'static str]) -> Result<Self, Lack> {
        installed(&["mkfs.ext4"])?;
        std::fs::File::create(file).and_then(|created| created.set_len(kib << 10)).expect("a file");
        let image = Image { file: file.to_path_buf(), mkfs: mkfs.to_vec() };
        let arguments: Vec<&str> = ["-q", "-F"].into_iter().chain(image.mkfs.iter().copied()).chain([text(file)]).collect();
        run("mkfs.ext4", &arguments).expect("a file system can be made in a file");
        Ok(image)
    }

    /// A mount that was ended may live on in a copy of all mounts that somebody made for a while, and what is wrong with it, too:
    /// waits until the kernel has let go of the file.
    pub fn mount(&self, at: &Path, options: &str) -> Result<Mount, Lack> {
        installed(&["losetup"])?;
        let deadline = Instant::now() + Duration::from_secs(20);
        while !run("losetup", &["-j", text(&self.file)]).map_err(Lack::Kernel)?.is_empty() {
            assert!(Instant::now() < deadline, "{} is still mounted somewhere", self.file.display());
            std::thread::sleep(Duration::from_millis(5));
        }
        Mount::new(at, &["-t", "ext4", "-o", &format!("loop,{options}"), text(&self.file)])
    }
}

/// Cuts a mounted ext4 file system off from its device, journal and all, as a power cut does (`FS_IOC_SHUTDOWN`).
pub fn cut_power(at: &Path) {
    /// `_IOR('X', 125, __u32)`, linux/ext4.h.
    const SHUTDOWN: rustix::ioctl::Opcode = rustix::ioctl::opcode::read::<u32>(b'X', 125);
    /// `EXT4_GOING_FLAGS_NOLOGFLUSH`: what is in the journal only in memory is gone.
    const NO_LOG_FLUSH: u32 = 2;
    let dir = std::fs::File::open(at).expect("it is mounted");
    let mut flags = NO_LOG_FLUSH;
    // SAFETY: the call reads one u32 behind the pointer it is given, and the `Updater` is made for a u32.
    unsafe { rustix::ioctl::ioctl(dir.as_fd(), rustix::ioctl::Updater::<SHUTDOWN, u32>::new(&mut flags)) }.expect("ext4 can be shut down");
}
