//! What is counted.

use super::*;
use crate::counters::HostStats;

impl Stage {
    /// The numbers of `app.example`, once they are as they should be: they follow what is seen from outside.
    async fn stats(&self, as_expected: impl Fn(&HostStats) -> bool) -> HostStats {
        let wait = async {
            loop {
                let stats = self.routes.stats().remove("app.example").unwrap();
                if as_expected(&stats) {
                    return stats;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let all = || self.routes.stats();
        timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("not as expected: {:?}", all()))
    }
}

#[tokio::test]
async fn requests_and_bytes_are_counted() {
    let stage = Stage::with(|_, mut peer| async move {
        peer.hear("body").await;
        peer.say("HTTP/1.1 500 Oh\r\ncontent-length: 5\r\n\r\nsorry").await;
    })
    .await;
    for _ in 0..2 {
        let post = get("content-length: 4\r\n").replace("GET", "POST") + "body";
        assert!(stage.ask(&post).await.ends_with("sorry"));
    }
    let stats = stage.stats(|stats| stats.in_flight == 0).await;
    assert_eq!((stats.requests, stats.failures, stats.received, stats.sent), (2, 2, 8, 10));
    assert_eq!(stats.latency.counts.iter().sum::<u64>(), 2);
    assert!(stats.last.is_some());
    // What is answered for the backend is a failure of the host, too.
    stage.route(Backend::Unavailable("moving".into()));
    stage.ask(&get("")).await;
    let stats = stage.stats(|stats| stats.in_flight == 0).await;
    assert_eq!((stats.requests, stats.failures), (3, 3));
}

#[tokio::test]
async fn a_request_is_in_flight_until_its_answer_has_ended() {
    let (go, gone) = oneshot::channel();
    let gone = std::sync::Mutex::new(Some(gone));
    let stage = Stage::with(move |_, mut peer| {
        let gone = gone.lock().unwrap().take().unwrap();
        async move {
            peer.hear_head().await;
            peer.say("HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nhalf").await;
            gone.await.unwrap();
            peer.say("half").await;
        }
    })
    .await;
    let mut peer = stage.visit().await;
    peer.say(&get("")).await;
    peer.hear("half").await;
    let stats = stage.stats(|stats| stats.sent == 4).await;
    assert_eq!((stats.requests, stats.in_flight), (1, 1));
    go.send(()).unwrap();
    peer.hear_all().await;
    let stats = stage.stats(|stats| stats.in_flight == 0).await;
    assert_eq!((stats.requests, stats.sent, stats.failures), (1, 8, 0));
}

#[tokio::test]
async fn a_tunnel_is_in_flight_until_it_ends() {
    let stage = Stage::with(|_, mut peer| async move {
        peer.hear_head().await;
        peer.say("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: a\r\n\r\n")
            .await;
        peer.hear("hello").await;
        peer.say("welcome").await;
        peer.ended().await;
    })
    .await;
    let mut peer = stage.visit().await;
    peer.say("GET / HTTP/1.1\r\nhost: app.example\r\nconnection: upgrade\r\nupgrade: a\r\n\r\n")
        .await;
    peer.hear_head().await;
    peer.say("hello").await;
    peer.hear("welcome").await;
    let stats = stage.stats(|stats| stats.sent == 7).await;
    assert_eq!((stats.in_flight, stats.received), (1, 5));
    drop(peer);
    stage.stats(|stats| stats.in_flight == 0).await;
}

#[tokio::test]
async fn a_visitor_who_leaves_is_not_in_flight() {
    let (began, mut begins) = mpsc::channel(1);
    let stage = Stage::with(move |_, mut peer| {
        let began = began.clone();
        async move {
            peer.hear_head().await;
            began.send(()).await.unwrap();
            peer.ended().await;
        }
    })
    .await;
    let mut peer = stage.visit().await;
    peer.say(&get("")).await;
    begins.recv().await.unwrap();
    assert_eq!(stage.stats(|_| true).await.in_flight, 1);
    drop(peer);
    stage.stats(|stats| stats.in_flight == 0).await;
}
