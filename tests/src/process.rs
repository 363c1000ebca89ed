//! Programs: the project's, the machine's, and the one under test.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use tokio::process::Command;

/// The checkout.
pub fn project() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests).to_owned()
}

/// A tool of the project's, or else of the machine's.
pub(crate) fn tool(name: &str) -> PathBuf {
    let ours = project().join("node_modules/.bin").join(name);
    if ours.exists() { ours } else { name.into() }
}

/// The program under test: it lies where this one was built, or above.
///
/// # Errors
/// When it is not built.
pub fn roadstead() -> anyhow::Result<PathBuf> {
    let this = std::env::current_exe()?;
    let found = this.ancestors().skip(1).take(2).map(|folder| folder.join("roadstead"));
    found.into_iter().find(|path| path.is_file()).with_context(|| {
        format!(
            "there is no program roadstead beside {}; build it with `cargo build -p roadstead`",
            this.display()
        )
    })
}

/// A command whose process the kernel kills when the thread that starts it ends, however it ends; in the network of
/// `netns`, if there is one.
pub(crate) fn bound(netns: Option<&str>, program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    if let Some(netns) = netns {
        command.arg("nsenter").arg(format!("--net=/run/netns/{netns}"));
    }
    command.arg(program).kill_on_drop(true);
    command
}

/// Runs a command to its end and returns what it wrote to its standard output.
///
/// # Errors
/// When it cannot be run or fails; with what it wrote to its standard error.
pub(crate) async fn run(command: &mut Command) -> anyhow::Result<String> {
    let shown = format!("{:?}", command.as_std());
    let output = command.kill_on_drop(true).output().await;
    let output = output.with_context(|| format!("{shown} cannot be run"))?;
    ensure!(
        output.status.success(),
        "{shown} ended with {}:\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// As [`run`], for a program that is given whole.
pub(crate) async fn call(program: &str, args: &[&str]) -> anyhow::Result<String> {
    run(Command::new(program).args(args)).await
}
