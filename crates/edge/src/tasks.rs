//! What runs beside its owner, and ends with it.

use std::future::Future;

use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Tasks that end with their owner.
#[derive(Debug, Clone)]
pub(crate) struct Tasks {
    tracker: TaskTracker,
    end: CancellationToken,
}

impl Tasks {
    pub(crate) fn new(end: &CancellationToken) -> Self {
        Self { tracker: TaskTracker::new(), end: end.clone() }
    }

    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(self.end.clone().run_until_cancelled_owned(task));
    }

    pub(crate) fn len(&self) -> usize {
        self.tracker.len()
    }

    pub(crate) async fn finished(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }
}

/// So that hyper's own tasks, one for each stream of HTTP/2, end likewise.
impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Tasks {
    fn execute(&self, task: F) {
        self.spawn(task);
    }
}
