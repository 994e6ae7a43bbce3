//! A process that ends when its owner does, however that ends: a shell waits on a pipe whose other end only the owner
//! holds, and then kills the process with everything it started in its session.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// `$1` is a folder to be removed at the end, or nothing; the rest is the command.
const SCRIPT: &str = r#"folder=$1; shift
setsid "$@" </dev/null &
process=$!
cat >/dev/null
kill -KILL "-$process" 2>/dev/null
wait 2>/dev/null
if [ -n "$folder" ]; then rm -rf "$folder"; fi"#;

/// Killed when it is dropped, or when this process is gone.
#[derive(Debug)]
pub(crate) struct Watched {
    shell: Child,
}

impl Watched {
    /// Starts `command` (program first); `removed` is a folder that goes with it.
    pub(crate) fn start(
        command: &[&OsStr],
        environment: &[(&'static str, String)],
        log: &Path,
        removed: Option<&Path>,
    ) -> io::Result<Self> {
        let output = File::options().create(true).append(true).open(log)?;
        let shell = Command::new("sh")
            .args(["-c", SCRIPT, "sh"])
            .arg(removed.map_or_else(|| OsStr::new(""), Path::as_os_str))
            .args(command)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(output.try_clone()?)
            .stderr(output)
            // The terminal's Ctrl-C is for the owner; the shell learns of it by the pipe.
            .process_group(0)
            .spawn()?;
        Ok(Self { shell })
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}
