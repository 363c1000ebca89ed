//! What two sides say after they have left HTTP.

use std::{sync::Arc, time::Duration};

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;

use super::exchange::Exchange;
use crate::activity::Metered;

/// Passes on whatever the two say, until both have finished or nothing has moved for `idle`.
pub(super) async fn run(
    visitor: OnUpgrade,
    backend: OnUpgrade,
    exchange: Arc<Exchange>,
    idle: Duration,
) {
    let (visitor, backend) = match tokio::try_join!(visitor, backend) {
        Ok(both) => both,
        Err(err) => return tracing::debug!(error = %err, "no tunnel came of an upgrade"),
    };
    let mut visitor = Metered::new(TokioIo::new(visitor), Arc::clone(&exchange));
    let mut backend = TokioIo::new(backend);
    let ended = tokio::select! {
        ended = copy_bidirectional(&mut visitor, &mut backend) => ended.map(drop),
        () = exchange.until_quiet(idle) => {
            return tracing::debug!("a tunnel was ended, as nothing moved for {idle:?}");
        }
    };
    if let Err(err) = ended {
        tracing::debug!(error = %err, "a tunnel ended early");
    }
}
