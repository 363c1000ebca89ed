//! What a lease's payer asks its provider beyond the lease: events, programs, connections, files, volumes.

use std::{io, sync::Arc};

use ::provider::wire::{
    self, BEGUN, Hold, Imported, LeaseEvent, PathStat, ServiceStats, VolumeStatus,
};
use bytes::Bytes;
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream::BoxStream};
use reqwest::{Method, StatusCode, header};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{self, client::IntoClientRequest as _},
};

use super::{Client, ClientError, Expected, Lines, PATIENCE, WrongKey, body, tls};
use crate::output;

/// A connection on which both sides say what they like when they like.
pub(crate) type Socket = WebSocketStream<TlsStream<TcpStream>>;

/// The bytes of a tar, as they arrive.
pub(crate) type TarStream = BoxStream<'static, io::Result<Bytes>>;

impl Client {
    /// What happened to a lease, and what happens.
    pub(crate) async fn events(
        &self,
        lease: u64,
        since: Option<u64>,
        follow: bool,
    ) -> Result<Lines<LeaseEvent>, ClientError> {
        let mut query = vec![("follow", follow.to_string())];
        query.extend(since.map(|since| ("since", since.to_string())));
        self.lines(&format!("/v1/leases/{lease}/events"), &query).await
    }

    /// What the services of a lease use: once, or every second.
    pub(crate) async fn stats(
        &self,
        lease: u64,
        service: Option<&str>,
        follow: bool,
    ) -> Result<Lines<ServiceStats>, ClientError> {
        let query = [vec![("follow", follow.to_string())], named(service)].concat();
        self.lines(&format!("/v1/leases/{lease}/stats"), &query).await
    }

    /// A connection to a program that is to be run.
    pub(crate) async fn exec(
        &self,
        lease: u64,
        service: Option<&str>,
    ) -> Result<Socket, ClientError> {
        self.socket(&format!("/v1/leases/{lease}/exec"), &named(service)).await
    }

    /// A connection to a port of a service.
    pub(crate) async fn forward(
        &self,
        lease: u64,
        service: Option<&str>,
        port: u16,
    ) -> Result<Socket, ClientError> {
        let query = [vec![("port", port.to_string())], named(service)].concat();
        self.socket(&format!("/v1/leases/{lease}/forward"), &query).await
    }

    /// What is at a path in a container; nothing if there is nothing.
    pub(crate) async fn stat(
        &self,
        lease: u64,
        service: Option<&str>,
        path: &str,
    ) -> Result<Option<PathStat>, ClientError> {
        let query = [vec![("path", path.to_owned())], named(service)].concat();
        let route = format!("/v1/leases/{lease}/stat");
        let ask = || self.asking(Method::GET, &route, &query).timeout(PATIENCE);
        match self.json(ask).await {
            // The service is there, or it would be refused in another way: `stat` of the root tells.
            Err(ClientError::Refused { status: StatusCode::NOT_FOUND, .. }) if path != "/" => {
                let root = [vec![("path", "/".to_owned())], named(service)].concat();
                let ask = || self.asking(Method::GET, &route, &root).timeout(PATIENCE);
                self.json::<PathStat>(ask).await?;
                Ok(None)
            }
            other => other.map(Some),
        }
    }

    /// What is at a path in a container.
    pub(crate) async fn download(
        &self,
        lease: u64,
        service: Option<&str>,
        path: &str,
    ) -> Result<TarStream, ClientError> {
        let query = [vec![("path", path.to_owned())], named(service)].concat();
        let (stream, _begun) = self.tar(&format!("/v1/leases/{lease}/files"), &query).await?;
        Ok(stream)
    }

    /// Unpacks a tar in a folder of a container.
    pub(crate) async fn upload(
        &self,
        lease: u64,
        service: Option<&str>,
        path: &str,
        tar: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> Result<(), ClientError> {
        let query = [vec![("path", path.to_owned())], named(service)].concat();
        let request = self.asking(Method::PUT, &format!("/v1/leases/{lease}/files"), &query);
        self.put_once(request, tar).await?;
        Ok(())
    }

    /// The volumes of a lease.
    pub(crate) async fn volumes(&self, lease: u64) -> Result<Vec<VolumeStatus>, ClientError> {
        let route = format!("/v1/leases/{lease}/volumes");
        self.json(|| self.asking(Method::GET, &route, &[]).timeout(PATIENCE)).await
    }

    /// What is in a volume, and when its provider began to say so; with `since`, what was changed after that alone.
    pub(crate) async fn export(
        &self,
        lease: u64,
        volume: &str,
        pause: bool,
        since: Option<u64>,
    ) -> Result<(TarStream, Option<u64>), ClientError> {
        let mut query = vec![("pause", pause.to_string())];
        query.extend(since.map(|since| ("since", since.to_string())));
        self.tar(&volume_route(lease, volume), &query).await
    }

    /// Fills a volume.
    pub(crate) async fn import(
        &self,
        lease: u64,
        volume: &str,
        how: Import,
        tar: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> Result<Imported, ClientError> {
        let Import { replace, mirror, live } = how;
        let query = [("replace", replace), ("mirror", mirror), ("live", live)];
        let query = query.map(|(key, value)| (key, value.to_string()));
        let request = self.asking(Method::PUT, &volume_route(lease, volume), &query);
        let answer = self.put_once(request, tar).await?;
        serde_json::from_slice(&body(answer).await?).map_err(ClientError::Answer)
    }

    /// Removes a volume that is kept.
    pub(crate) async fn remove_volume(&self, lease: u64, volume: &str) -> Result<(), ClientError> {
        let route = volume_route(lease, volume);
        self.send(|| self.asking(Method::DELETE, &route, &[]).timeout(PATIENCE)).await?;
        Ok(())
    }

    /// Has the containers of a lease stopped, for a while. They are given the time that they need to end.
    pub(crate) async fn hold(&self, lease: u64, seconds: u64) -> Result<(), ClientError> {
        let route = format!("/v1/leases/{lease}/hold");
        self.send(|| self.asking(Method::PUT, &route, &[]).json(&Hold { seconds })).await?;
        Ok(())
    }

    /// Has the containers of a lease go on.
    pub(crate) async fn release(&self, lease: u64) -> Result<(), ClientError> {
        let route = format!("/v1/leases/{lease}/hold");
        self.send(|| self.asking(Method::DELETE, &route, &[])).await?;
        Ok(())
    }

    async fn tar(
        &self,
        route: &str,
        query: &[(&str, String)],
    ) -> Result<(TarStream, Option<u64>), ClientError> {
        let answer = self.send(|| self.asking(Method::GET, route, query)).await?;
        let begun = answer.headers().get(BEGUN).and_then(|value| value.to_str().ok()?.parse().ok());
        let chunks = answer.bytes_stream().map_err(|err| io::Error::other(err.without_url()));
        Ok((chunks.boxed(), begun))
    }

    /// Sends what cannot be sent twice: the session is made sure of beforehand.
    async fn put_once(
        &self,
        request: reqwest::RequestBuilder,
        tar: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> Result<reqwest::Response, ClientError> {
        // A provider that was restarted has forgotten who was signed in; anything small finds out.
        *self.token.lock().await = None;
        let request = request
            .bearer_auth(self.token().await?)
            .header(header::CONTENT_TYPE, "application/x-tar")
            .body(reqwest::Body::wrap_stream(tar));
        self.endpoint.send(request).await
    }

    async fn socket(&self, route: &str, query: &[(&str, String)]) -> Result<Socket, ClientError> {
        match self.connect(route, query).await {
            Err(ClientError::Refused { status: StatusCode::UNAUTHORIZED, .. }) => {
                *self.token.lock().await = None;
                self.connect(route, query).await
            }
            other => other,
        }
    }

    async fn connect(&self, route: &str, query: &[(&str, String)]) -> Result<Socket, ClientError> {
        let token = self.token().await?;
        let mut url = self.endpoint.url.clone();
        url.set_path(route);
        url.query_pairs_mut().extend_pairs(query);
        let bad = || ClientError::Endpoint(output::tame(self.endpoint.url.as_str()));
        let host = url.host_str().ok_or_else(bad)?.trim_matches(['[', ']']).to_owned();
        let port = url.port_or_known_default().ok_or_else(bad)?;
        let stream = async {
            let tcp = TcpStream::connect((host.as_str(), port)).await?;
            tcp.set_nodelay(true)?;
            let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
            let config = tls(Expected::Key(self.endpoint.key)).map_err(io::Error::other)?;
            TlsConnector::from(Arc::new(config)).connect(name, tcp).await
        };
        let stream = tokio::time::timeout(PATIENCE, stream).await.map_err(|_| ClientError::Late)?;
        let stream = stream.map_err(|err| match WrongKey::of(&err) {
            Some(wrong) => ClientError::WrongKey(wrong),
            None => ClientError::Broken(Box::new(err.into())),
        })?;
        let address = url.as_str().replacen("https", "wss", 1);
        let mut request = address.into_client_request().map_err(broken)?;
        let bearer = format!("Bearer {token}").parse().map_err(|_err| bad())?;
        request.headers_mut().insert(header::AUTHORIZATION, bearer);
        let opening = tokio::time::timeout(PATIENCE * 2, client_async(request, stream)).await;
        match opening.map_err(|_| ClientError::Late)? {
            Ok((socket, _answer)) => Ok(socket),
            Err(tungstenite::Error::Http(answer)) => Err(refusal(&answer)),
            Err(err) => Err(broken(err)),
        }
    }
}

/// How a volume is filled.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Import {
    /// What is there is removed first.
    pub(crate) replace: bool,
    /// What the tar does not name is removed, files that it calls unchanged stay.
    pub(crate) mirror: bool,
    /// Although services run that have it.
    pub(crate) live: bool,
}

fn named(service: Option<&str>) -> Vec<(&'static str, String)> {
    service.map(|service| ("service", service.to_owned())).into_iter().collect()
}

fn volume_route(lease: u64, volume: &str) -> String {
    format!("/v1/leases/{lease}/volumes/{volume}")
}

pub(crate) fn broken(err: tungstenite::Error) -> ClientError {
    ClientError::Broken(Box::new(err))
}

fn refusal(answer: &tungstenite::handshake::client::Response) -> ClientError {
    let status = StatusCode::from_u16(answer.status().as_u16()).unwrap_or(StatusCode::BAD_GATEWAY);
    let said = answer.body().as_deref().unwrap_or_default();
    let why = serde_json::from_slice::<wire::ApiError>(said);
    let why = why.map(|said| output::tame(&said.error));
    let why = why.unwrap_or_else(|_err| format!("it answers with the HTTP status {status}"));
    ClientError::Refused { status, why }
}
