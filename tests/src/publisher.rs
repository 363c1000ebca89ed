//! A publisher: the command line, with a home of its own.

use std::{
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
};

use ::provider::wire::QuoteResponse;
use alloy::{
    primitives::{Address, B256, hex, keccak256},
    signers::local::PrivateKeySigner,
};
use anyhow::{Context as _, ensure};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStderr, ChildStdout, Command},
};

use crate::{pod::PodFile, process::roadstead};

/// A wallet with a home folder, at whose command line somebody sits.
#[derive(Debug, Clone)]
pub struct Publisher {
    /// Its key.
    pub signer: PrivateKeySigner,
    home: PathBuf,
}

/// What came of a command.
#[derive(Debug, Clone)]
pub struct Said {
    /// The command, for messages.
    pub command: String,
    /// The exit code.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// A command that runs.
#[derive(Debug)]
pub struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    steps: Lines<BufReader<ChildStderr>>,
}

/// A lease, as `deploy` and `update` tell of it.
#[derive(Debug, Clone)]
pub struct Deployed {
    /// Its number.
    pub lease: u64,
    /// Units per second.
    pub rate: u128,
    /// All that was printed.
    pub json: Value,
}

impl Said {
    /// The JSON that was printed.
    ///
    /// # Errors
    /// When the command failed, or printed something else.
    pub fn json(&self) -> anyhow::Result<Value> {
        let Self { command, code, out, err } = self;
        ensure!(*code == 0, "`{command}` ended with {code}:\n{out}{err}");
        serde_json::from_str(out).with_context(|| format!("`{command}` printed no JSON: {out}"))
    }

    /// Makes sure that the command failed as it should, and said all of `words`.
    ///
    /// # Errors
    /// When it did not.
    pub fn refused(&self, code: i32, words: &[&str]) -> anyhow::Result<()> {
        let Self { command, code: got, out, err } = self;
        ensure!(*got == code, "`{command}` ended with {got} instead of {code}:\n{out}{err}");
        for word in words {
            ensure!(err.contains(word), "`{command}` does not say {word:?}:\n{err}");
        }
        ensure!(out.is_empty(), "`{command}` failed and printed {out}");
        Ok(())
    }
}

impl Deployed {
    fn read(json: Value) -> anyhow::Result<Self> {
        let lease = json["lease"].as_u64().context("there is no lease")?;
        let rate = json["rate"].as_str().context("there is no rate")?.parse()?;
        Ok(Self { lease, rate, json })
    }
}

impl Publisher {
    /// A home in `folder` for `signer`, whose node is at `rpc`.
    pub(crate) async fn new(
        folder: &Path,
        signer: PrivateKeySigner,
        rpc: &str,
        deployment: &Path,
    ) -> anyhow::Result<Self> {
        let home = folder.join("home");
        std::fs::create_dir_all(&home)?;
        let mut config = toml::Table::new();
        config.insert("rpc".into(), rpc.into());
        config.insert("deployment".into(), deployment.display().to_string().into());
        config.insert("passphrase_file".into(), "passphrase".into());
        std::fs::write(home.join("config.toml"), config.to_string())?;
        let mut passphrase = std::fs::File::options()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(home.join("passphrase"))?;
        passphrase.write_all(hex::encode(PrivateKeySigner::random().to_bytes()).as_bytes())?;

        let this = Self { signer, home };
        let mut child = this
            .command(&["wallet", "import"])?
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut stdin = child.stdin.take().context("the command reads nothing")?;
        let key = hex::encode(this.signer.to_bytes());
        tokio::io::AsyncWriteExt::write_all(&mut stdin, key.as_bytes()).await?;
        drop(stdin);
        let output = child.wait_with_output().await?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "the wallet was not imported: {said}");
        Ok(this)
    }

    /// Its wallet.
    pub fn address(&self) -> Address {
        self.signer.address()
    }

    /// Its home folder.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Its account, where none is named.
    pub fn account(&self) -> B256 {
        chain::account_id(self.address(), self.salt())
    }

    /// The salt of that account.
    pub fn salt(&self) -> B256 {
        keccak256("default")
    }

    fn command(&self, args: &[&str]) -> anyhow::Result<Command> {
        let mut command = Command::new(roadstead()?);
        command
            // In front, since what follows may be the command line of somebody else.
            .arg("--json")
            .args(args)
            .env("ROADSTEAD_HOME", &self.home)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        Ok(command)
    }

    /// Runs a command to its end.
    ///
    /// # Errors
    /// When it cannot be run.
    pub async fn run(&self, args: &[&str]) -> anyhow::Result<Said> {
        let output = self.command(args)?.output().await?;
        Ok(Said {
            command: format!("roadstead {}", args.join(" ")),
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Runs a command that has to succeed, and returns what it printed.
    ///
    /// # Errors
    /// When it fails.
    pub async fn json(&self, args: &[&str]) -> anyhow::Result<Value> {
        self.run(args).await?.json()
    }

    /// Runs a command to its end that reads `input`; its code, and what it wrote, byte for byte.
    ///
    /// # Errors
    /// When it cannot be run.
    pub async fn feed(&self, args: &[&str], input: &[u8]) -> anyhow::Result<(i32, Vec<u8>)> {
        let mut child = self.command(args)?.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut stdin = child.stdin.take().context("the command reads nothing")?;
        let write = async {
            // It may have had enough.
            let _closed = tokio::io::AsyncWriteExt::write_all(&mut stdin, input).await;
            drop(stdin);
        };
        let ((), output) = tokio::join!(write, child.wait_with_output());
        let output = output?;
        Ok((output.status.code().unwrap_or(-1), output.stdout))
    }

    /// Runs a command to its end on a terminal of its own, and returns what that shows.
    ///
    /// # Errors
    /// When it cannot be run, or fails.
    pub async fn on_a_terminal(&self, args: &[&str]) -> anyhow::Result<String> {
        let quoted = |arg: &str| format!("'{}'", arg.replace('\'', "'\\''"));
        let program = roadstead()?.display().to_string();
        let line = [&[program.as_str()], args].concat().into_iter().map(quoted);
        let mut script = Command::new("script");
        script
            .args(["--quiet", "--return", "--command"])
            .arg(line.collect::<Vec<_>>().join(" "))
            .arg("/dev/null")
            .env("ROADSTEAD_HOME", &self.home)
            .env("TERM", "dumb")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = script.output().await.context("script cannot be run")?;
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.success(), "it ended with {}: {shown}", output.status);
        Ok(shown)
    }

    /// Starts a command.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn start(&self, args: &[&str]) -> anyhow::Result<Running> {
        let mut child =
            self.command(args)?.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let lines = child.stdout.take().context("the command writes nothing")?;
        let steps = child.stderr.take().context("the command tells nothing")?;
        let (lines, steps) = (BufReader::new(lines).lines(), BufReader::new(steps).lines());
        Ok(Running { child, lines, steps })
    }

    /// Deploys a pod, with five tokens for its account.
    ///
    /// # Errors
    /// When it does not come to run.
    pub async fn deploy(&self, pod: &PodFile) -> anyhow::Result<Deployed> {
        Deployed::read(self.json(&["deploy", pod.path(), "--yes", "--fund", "5"]).await?)
    }

    /// Asks the provider for a quote, and returns it as it came.
    ///
    /// # Errors
    /// When there is none.
    pub async fn quote(&self, pod: &PodFile) -> anyhow::Result<QuoteResponse> {
        let quotes: Vec<QuoteResponse> =
            serde_json::from_value(self.json(&["quote", pod.path()]).await?)?;
        quotes.into_iter().next().context("there is no quote")
    }

    /// Changes the pod of a lease.
    ///
    /// # Errors
    /// When it is not changed, or does not come to run.
    pub async fn update(&self, lease: u64, pod: &PodFile) -> anyhow::Result<Deployed> {
        Deployed::read(self.json(&["update", &lease.to_string(), pod.path(), "--yes"]).await?)
    }

    /// Closes a lease.
    ///
    /// # Errors
    /// When it is not closed.
    pub async fn down(&self, lease: u64) -> anyhow::Result<()> {
        self.json(&["down", &lease.to_string()]).await.map(drop)
    }

    /// What `ps --all` has of a lease.
    ///
    /// # Errors
    /// When it has nothing.
    pub async fn row(&self, lease: u64) -> anyhow::Result<Value> {
        let rows = self.json(&["ps", "--all"]).await?;
        let rows = rows.as_array().context("ps printed no list")?;
        let row = rows.iter().find(|row| row["lease"] == lease);
        row.cloned().with_context(|| format!("lease {lease} is not in {rows:?}"))
    }
}

impl Running {
    /// The next line that it prints; nothing once it has ended.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn line(&mut self) -> anyhow::Result<Option<String>> {
        Ok(self.lines.next_line().await?)
    }

    /// The next step that it tells of on standard error; nothing once it has ended.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn step(&mut self) -> anyhow::Result<Option<String>> {
        Ok(self.steps.next_line().await?)
    }

    /// Kills it with -9.
    ///
    /// # Errors
    /// When it has ended.
    pub async fn kill(mut self) -> anyhow::Result<()> {
        Ok(self.child.kill().await?)
    }

    /// Waits until it ends by itself, and returns what it printed that was not read before.
    ///
    /// # Errors
    /// When it fails, or prints something else than a lease in JSON.
    pub async fn deployed(self) -> anyhow::Result<Deployed> {
        Deployed::read(self.json().await?)
    }

    /// Waits until it ends by itself, and returns what it printed that was not read before.
    ///
    /// # Errors
    /// When it fails, or prints something else than JSON.
    pub async fn json(mut self) -> anyhow::Result<Value> {
        let mut out = String::new();
        while let Some(line) = self.line().await? {
            out.push_str(&line);
        }
        let status = self.child.wait().await?;
        let mut err = String::new();
        while let Some(step) = self.step().await? {
            err = format!("{err}\n{step}");
        }
        ensure!(status.success(), "the command ended with {status}: {out}{err}");
        Ok(serde_json::from_str(&out)?)
    }
}
