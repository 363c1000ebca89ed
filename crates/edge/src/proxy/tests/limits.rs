//! What may take long, and what may not.

use super::*;

const SHORT: Duration = Duration::from_millis(200);

/// A backend that takes the head and then does nothing.
async fn silent(_number: usize, mut peer: Peer) {
    peer.hear_head().await;
    peer.ended().await;
}

#[tokio::test]
async fn a_backend_has_to_answer_in_time() {
    let limits = Limits { answer: SHORT, ..Limits::default() };
    let stage = Stage::within(limits, silent).await;
    let answer = stage.ask(&get("")).await;
    assert!(answer.starts_with("HTTP/1.1 504"), "{answer}");
    assert!(answer.ends_with("app.example did not answer the request in time\n"), "{answer}");
}

/// The time for an answer begins when the request has come to its end.
#[tokio::test]
async fn an_upload_may_take_longer_than_an_answer() {
    let limits = Limits { answer: SHORT, ..Limits::default() };
    let stage = Stage::within(limits, |_, mut peer| async move {
        peer.hear("0\r\n\r\n").await;
        peer.say(OK).await;
    })
    .await;
    let mut peer = stage.visit().await;
    peer.say(&get("transfer-encoding: chunked\r\n").replace("GET", "POST")).await;
    for _ in 0..5 {
        tokio::time::sleep(SHORT / 2).await;
        peer.say("1\r\na\r\n").await;
    }
    peer.say("0\r\n\r\n").await;
    assert!(peer.hear_all().await.ends_with("ok"));
}

#[tokio::test]
async fn an_answer_that_does_not_go_on_breaks_off() {
    let limits = Limits { idle: SHORT, ..Limits::default() };
    let stage = Stage::within(limits, |_, mut peer| async move {
        peer.hear_head().await;
        peer.say("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n").await;
        assert!(peer.ended().await);
    })
    .await;
    let mut peer = stage.visit().await;
    peer.say(&get("")).await;
    peer.hear("half\r\n").await;
    assert!(peer.ended().await);
}

#[tokio::test]
async fn an_answer_may_last_while_it_goes_on() {
    let limits = Limits { idle: SHORT, ..Limits::default() };
    let stage = Stage::within(limits, |_, mut peer| async move {
        peer.hear_head().await;
        peer.say("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
        for _ in 0..5 {
            tokio::time::sleep(SHORT / 2).await;
            peer.say("1\r\na\r\n").await;
        }
        peer.say("0\r\n\r\n").await;
        peer.ended().await;
    })
    .await;
    assert!(stage.ask(&get("")).await.ends_with("\r\n0\r\n\r\n"));
}

#[tokio::test]
async fn a_request_that_does_not_go_on_breaks_off() {
    let limits = Limits { idle: SHORT, ..Limits::default() };
    let (ended, mut ends) = mpsc::channel(1);
    let stage = Stage::within(limits, move |_, mut peer| {
        let ended = ended.clone();
        async move {
            peer.hear("half").await;
            assert!(peer.ended().await);
            ended.send(()).await.unwrap();
        }
    })
    .await;
    let mut peer = stage.visit().await;
    peer.say(&get("content-length: 8\r\n").replace("GET", "POST")).await;
    peer.say("half").await;
    assert!(peer.ended().await);
    assert!(timeout(PATIENCE, ends.recv()).await.unwrap().is_some());
}

/// What waits for such a visitor is held here and at the backend, so it may not last.
#[tokio::test]
async fn a_visitor_who_does_not_read_is_left() {
    let limits = Limits { idle: SHORT, ..Limits::default() };
    let (ended, mut ends) = mpsc::channel(1);
    let stage = Stage::within(limits, move |_, mut peer| {
        let ended = ended.clone();
        async move {
            peer.hear_head().await;
            peer.say("HTTP/1.1 200 OK\r\n\r\n").await;
            // More than all buffers on the way hold.
            while peer.stream.write_all(&[b'a'; 64 << 10]).await.is_ok() {}
            ended.send(()).await.unwrap();
        }
    })
    .await;
    let mut peer = stage.visit().await;
    peer.say(&get("")).await;
    assert!(timeout(PATIENCE, ends.recv()).await.unwrap().is_some());
    drop(peer);
}

#[tokio::test]
async fn a_tunnel_may_last_while_something_moves() {
    let limits = Limits { idle: SHORT, ..Limits::default() };
    let stage = Stage::within(limits, |_, mut peer| async move {
        peer.hear_head().await;
        peer.say("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: a\r\n\r\n")
            .await;
        for _ in 0..5 {
            tokio::time::sleep(SHORT / 2).await;
            peer.say(".").await;
        }
        assert!(peer.ended().await);
    })
    .await;
    let mut peer = stage.visit().await;
    peer.say("GET / HTTP/1.1\r\nhost: app.example\r\nconnection: upgrade\r\nupgrade: a\r\n\r\n")
        .await;
    assert!(peer.hear_head().await.starts_with("HTTP/1.1 101"));
    peer.hear(".....").await;
    assert!(peer.ended().await);
}
