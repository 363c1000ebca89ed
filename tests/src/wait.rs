//! Waiting on conditions, each with a deadline.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

/// In how much time whatever a story waits for comes true; on a machine that does much else at the same time.
pub const SOON: Duration = Duration::from_secs(40);

/// How often is looked.
const LOOK: Duration = Duration::from_millis(50);

/// Waits until `look` finds `what`. A look that fails counts as one that does not find it.
///
/// # Errors
/// When it is not found soon; with what the last look said.
pub async fn until<T>(
    what: &str,
    look: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    until_within(what, SOON, look).await
}

/// As [`until`], with a deadline of its own.
///
/// # Errors
/// When it is not found in time.
pub async fn until_within<T>(
    what: &str,
    patience: Duration,
    mut look: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let end = Instant::now() + patience;
    loop {
        let last = match tokio::time::timeout(patience, look()).await {
            Ok(Ok(Some(found))) => return Ok(found),
            Ok(Ok(None)) => None,
            Ok(Err(err)) => Some(err),
            Err(late) => Some(late.into()),
        };
        if Instant::now() > end {
            let failed = format!("waited {patience:?} in vain until {what}");
            match last {
                Some(err) => return Err(err).context(failed),
                None => bail!(failed),
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}
