//! A browser: scripts of `tests/browser`, each of which fails by ending with a failure.

use std::path::Path;

use tokio::process::Command;

use crate::process::{project, run};

/// Runs a script of `tests/browser` with its arguments.
///
/// # Errors
/// When it cannot be run, or finds something wrong.
pub async fn browse(script: &str, args: &[&str]) -> anyhow::Result<()> {
    let script = project().join("tests/browser").join(script);
    run(node(&script).args(args)).await.map(drop)
}

fn node(script: &Path) -> Command {
    let mut command = Command::new("node");
    command.arg(script).current_dir(project());
    command
}
