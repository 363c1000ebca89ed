//! A private Postgres.

use std::{
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, Uid, User},
};
use tempfile::TempDir;
use tokio::process::{Child, Command};

/// How long it may take to answer, and to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// Postgres, with a cluster that is made for it and goes with it. It listens on a socket in a folder that only its user may
/// enter.
#[derive(Debug)]
pub(super) struct Postgres {
    child: Child,
    folder: TempDir,
    pub(super) url: String,
}

/// The folder of the newest Postgres that is installed, as scripts/postgres finds it.
fn programs() -> Option<PathBuf> {
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&on_path).find_map(|folder| {
        let initdb = folder.join("initdb").canonicalize().ok()?;
        Some(initdb.parent()?.to_owned())
    });
    let mut installed: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|version| {
            let version = version.ok()?;
            Some((version.file_name().to_str()?.parse().ok()?, version.path().join("bin")))
        })
        .collect();
    installed.sort();
    let newest = installed.into_iter().map(|(_version, folder)| folder).rev();
    let is_whole = |folder: &PathBuf| {
        ["initdb", "pg_isready", "postgres"].iter().all(|name| folder.join(name).exists())
    };
    on_path.into_iter().chain(newest).find(is_whole)
}

impl Postgres {
    /// Starts one, if there is a Postgres on this machine.
    pub(super) async fn start() -> anyhow::Result<Option<Self>> {
        let Some(programs) = programs() else { return Ok(None) };
        // Postgres refuses to run as root; then it is the user's that its package made.
        let user = if Uid::effective().is_root() { User::from_name("postgres")? } else { None };
        ensure!(
            user.is_some() || !Uid::effective().is_root(),
            "Postgres refuses to run as root, and there is no user \"postgres\""
        );
        // Not in the project's folder, which that user need not be able to enter, and short enough for a socket's path.
        let folder = tempfile::Builder::new().prefix("roadstead-").tempdir()?;
        if let Some(user) = &user {
            chown(folder.path(), Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
        }
        let host = folder.path().display().to_string();
        ensure!(!host.contains(['?', '&', '%', ' ']), "{host} cannot stand in an address");
        let url = format!("postgresql:///postgres?host={host}&user=roadstead");
        let child = begin(&programs, folder.path(), user.as_ref()).await?;
        Ok(Some(Self { child, folder, url }))
    }

    /// Ends it, and removes what it kept.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        // Asked to, it closes all connections and gives its shared memory back, which would outlive it if it were killed.
        if let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) {
            let _gone = kill(Pid::from_raw(pid), Signal::SIGINT);
        }
        if tokio::time::timeout(PATIENCE, self.child.wait()).await.is_err() {
            // It is gone if it cannot be killed; nobody needs what it has not written yet.
            let _gone = self.child.kill().await;
        }
        self.folder.close().context("the folder of the market's database could not be removed")
    }
}

async fn begin(programs: &Path, folder: &Path, user: Option<&User>) -> anyhow::Result<Child> {
    let data = folder.join("data");
    let command = |name: &str| {
        let mut command = Command::new(programs.join(name));
        if let Some(user) = user {
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        command.current_dir("/").stdin(Stdio::null()).kill_on_drop(true);
        command
    };
    let made = command("initdb")
        .arg("--pgdata")
        .arg(&data)
        .args(["--username", "roadstead", "--auth", "trust", "--no-sync"])
        .args(["--encoding", "UTF8", "--locale", "C"])
        .output()
        .await
        .context("initdb cannot be run")?;
    let said = String::from_utf8_lossy(&made.stderr);
    ensure!(made.status.success(), "initdb failed:\n{said}");
    let mut postgres = command("postgres");
    postgres.arg("-D").arg(&data).arg("-k").arg(folder);
    // All of it goes when this process does, so nothing is ever waited for to be on the disk.
    postgres.args([
        "-c",
        "listen_addresses=",
        "-c",
        "fsync=off",
        "-c",
        "unix_socket_permissions=0700",
    ]);
    let log = std::fs::File::create(folder.join("log"))?;
    // Ctrl-C is for us: the database goes last.
    let child = postgres.stdout(log.try_clone()?).stderr(log).process_group(0).spawn();
    let mut child = child.context("Postgres cannot be run")?;
    let end = Instant::now() + PATIENCE;
    while !command("pg_isready").arg("--quiet").arg("--host").arg(folder).status().await?.success()
    {
        if let Some(status) = child.try_wait()? {
            let log = std::fs::read_to_string(folder.join("log"))?;
            bail!("Postgres ended with {status}:\n{log}");
        }
        ensure!(Instant::now() < end, "Postgres does not answer");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(child)
}
