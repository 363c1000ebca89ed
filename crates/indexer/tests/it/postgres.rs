//! A database of the test's own: in a throw-away cluster, or in the one that DATABASE_URL names.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, ensure};

/// A cluster, or somebody else's.
pub(crate) struct Postgres {
    folder: Option<PathBuf>,
    url: String,
    made: Vec<String>,
}

pub(crate) fn project() -> PathBuf {
    let mut folders = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    folders.find(|folder| folder.join("Cargo.lock").exists()).unwrap().to_owned()
}

#[allow(dead_code, reason = "tests and benchmarks share this, and each uses some of it")]
impl Postgres {
    pub(crate) fn start() -> anyhow::Result<Self> {
        // What the indexer has to say is shown when the test fails.
        let _already_set = tracing_subscriber::fmt().with_test_writer().try_init();
        let theirs = std::env::var_os("DATABASE_URL").filter(|url| !url.is_empty());
        if let Some(url) = theirs {
            let url = url.into_string().ok().context("DATABASE_URL is not text")?;
            return Ok(Self { folder: None, url, made: Vec::new() });
        }
        // Its server is not this user's where that is root, and has to get there.
        let folder = std::env::temp_dir().join(format!("rs-pg-{:08x}", rand::random::<u32>()));
        let mut postgres = Self { folder: Some(folder), url: String::new(), made: Vec::new() };
        postgres.script("start")?;
        postgres.url = postgres.script("url")?.trim().to_owned();
        // Nobody misses these data after a power cut.
        postgres.psql("alter system set fsync = off")?;
        postgres.psql("select pg_reload_conf()")?;
        Ok(postgres)
    }

    fn script(&self, verb: &str) -> anyhow::Result<String> {
        let folder = self.folder.as_deref().context("the cluster is not ours")?;
        let output = Command::new(project().join("scripts/postgres"))
            .arg(verb)
            .env("ROADSTEAD_POSTGRES", folder)
            .env_remove("DATABASE_URL")
            .output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let complained = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "scripts/postgres {verb}: {said}{complained}");
        Ok(said)
    }

    pub(crate) fn psql(&self, statement: &str) -> anyhow::Result<()> {
        let output = Command::new("psql")
            .args(["--no-psqlrc", "--quiet", "--dbname", &self.url, "--command", statement])
            .output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// What a database answers to statements, without headings.
    pub(crate) fn ask(database: &str, statements: &str) -> anyhow::Result<String> {
        let mut psql = Command::new("psql")
            .args(["--no-psqlrc", "--quiet", "--no-align", "--tuples-only"])
            .args(["--set", "ON_ERROR_STOP=1", "--dbname", database])
            .args(["--file", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        psql.stdin.take().context("psql takes nothing")?.write_all(statements.as_bytes())?;
        let output = psql.wait_with_output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }

    /// A new database; returns its address.
    pub(crate) fn database(&mut self) -> anyhow::Result<String> {
        let name = format!("test_{:016x}", rand::random::<u64>());
        self.psql(&format!("create database {name}"))?;
        let (front, query) = match self.url.split_once('?') {
            Some((front, query)) => (front, format!("?{query}")),
            None => (self.url.as_str(), String::new()),
        };
        let server = front.rsplit_once('/').context("the database's address has no name")?.0;
        let url = format!("{server}/{name}{query}");
        self.made.push(name);
        Ok(url)
    }

    /// Whether the cluster is the test's to stop.
    pub(crate) fn is_ours(&self) -> bool {
        self.folder.is_some()
    }

    /// Ends every process of the cluster at once, as a crash of the machine would, and starts it again.
    pub(crate) fn crash(&self) -> anyhow::Result<()> {
        let folder = self.folder.as_deref().context("the cluster is not ours")?;
        let pid = std::fs::read_to_string(folder.join("data/postmaster.pid"))?;
        let pid: i32 = pid.lines().next().context("the cluster does not run")?.trim().parse()?;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGQUIT)?;
        while Path::new(&format!("/proc/{pid}")).exists() {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        self.script("start").map(|_said| ())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let ended = match &self.folder {
            Some(folder) => {
                let stopped = self.script("stop").map(|_said| ());
                stopped.and(std::fs::remove_dir_all(folder).map_err(Into::into))
            }
            None => self.made.iter().try_for_each(|name| {
                self.psql(&format!("drop database if exists {name} with (force)"))
            }),
        };
        if let Err(err) = ended {
            eprintln!("the test's database was not removed: {err:#}");
        }
    }
}
