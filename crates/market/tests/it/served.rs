//! A market at work, and who asks it.

use std::{net::Ipv4Addr, num::NonZeroU32};

use anyhow::{Context as _, ensure};
use boon::{Compiler, SchemaIndex, Schemas};
use market::{Config, Limits, RunError};
use protocol::amount::Token;
use reqwest::{Method, Response, StatusCode, header::HeaderMap};
use serde_json::Value;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::anvil::Anvil;

/// A market at work.
pub(crate) struct Served {
    pub(crate) url: String,
    pub(crate) http: reqwest::Client,
    pub(crate) stop: CancellationToken,
    task: JoinSet<Result<(), RunError>>,
}

/// As many requests as a test may want.
const MANY: NonZeroU32 = NonZeroU32::new(1_000_000).unwrap();
/// For how long a provider counts as live, in seconds, as the contracts are deployed.
pub(crate) const TTL: u64 = 600;

pub(crate) fn config(anvil: &Anvil, database_url: &str) -> Config {
    Config {
        deployment: anvil.deployment.clone(),
        token: Token { symbol: "USD".into(), decimals: 6 },
        ttl: TTL,
        database_url: database_url.to_owned(),
        behind_proxy: false,
        limits: Limits {
            requests: MANY,
            burst: MANY,
            connections_each: 1_000,
            ..Limits::default()
        },
        stale_after: None,
    }
}

impl Served {
    pub(crate) async fn start(config: Config) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let stop = CancellationToken::new();
        let mut task = JoinSet::new();
        task.spawn(market::run(config, listener, stop.clone()));
        Ok(Self { url, http: reqwest::Client::new(), stop, task })
    }

    /// Asks with these headers.
    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
    ) -> anyhow::Result<Response> {
        let mut request = self.http.request(method, format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Ok(request.send().await?)
    }

    /// The status, the head and the body of what is at a path.
    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<(StatusCode, HeaderMap, Value)> {
        let response = self.ask(Method::GET, path, &[]).await?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.text().await?;
        let body = serde_json::from_str(&body).with_context(|| format!("{path}: {body}"))?;
        Ok((status, headers, body))
    }

    /// What is there.
    pub(crate) async fn found(&self, path: &str) -> anyhow::Result<Value> {
        let (status, _, body) = self.get(path).await?;
        ensure!(status == StatusCode::OK, "{path}: {status} {body}");
        Ok(body)
    }

    /// All items of all pages, from one to the next by `Link`.
    pub(crate) async fn pages(&self, path: &str, query: &str) -> anyhow::Result<Vec<Value>> {
        let (mut items, mut query) = (Vec::new(), query.to_owned());
        loop {
            let (status, headers, mut body) = self.get(&format!("{path}{query}")).await?;
            ensure!(status == StatusCode::OK, "{path}{query}: {status} {body}");
            items.append(body["items"].as_array_mut().context("no items")?);
            let Some(link) = headers.get("link") else {
                ensure!(body["next"].is_null(), "{path}{query}: a next page without a link");
                return Ok(items);
            };
            let link = link.to_str()?.strip_prefix('<').context("no link")?;
            let link = link.strip_suffix(">; rel=\"next\"").context("not to the next page")?;
            let next = body["next"].as_str().context("a link without a cursor")?;
            ensure!(link.ends_with(&format!("cursor={next}")), "{path}: {link} is not {next}");
            query = link.to_owned();
        }
    }

    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        self.stop.cancel();
        while let Some(ended) = self.task.join_next().await {
            ended??;
        }
        Ok(())
    }
}

/// The API's own description, to hold answers to.
pub(crate) struct Description {
    document: Value,
    schemas: Schemas,
    compiled: Vec<(String, SchemaIndex)>,
}

const AT: &str = "https://market.example/openapi.json";

impl Description {
    pub(crate) async fn of(served: &Served) -> anyhow::Result<Self> {
        let document = served.found("/v1/openapi.json").await?;
        Ok(Self { document, schemas: Schemas::new(), compiled: Vec::new() })
    }

    /// All paths.
    pub(crate) fn paths(&self) -> Vec<String> {
        let paths = self.document["paths"].as_object().into_iter().flatten();
        paths.map(|(path, _)| path.clone()).collect()
    }

    /// Holds an answer to what is said of its path and status.
    pub(crate) fn check(&mut self, path: &str, status: &str, body: &Value) -> anyhow::Result<()> {
        let response = &self.document["paths"][path]["get"]["responses"][status];
        let content = response["content"].as_object().context("no content is described")?;
        let (kind, _) = content.iter().next().context("no content is described")?;
        let escaped = |part: &str| part.replace('~', "~0").replace('/', "~1");
        let at = format!(
            "{AT}#/paths/{}/get/responses/{status}/content/{}/schema",
            escaped(path).replace('{', "%7B").replace('}', "%7D"),
            escaped(kind)
        );
        let known = self.compiled.iter().find(|(known, _)| *known == at).map(|(_, index)| *index);
        let index = match known {
            Some(index) => index,
            None => {
                let mut compiler = Compiler::new();
                compiler.set_default_draft(boon::Draft::V2020_12);
                compiler
                    .add_resource(AT, self.document.clone())
                    .map_err(|err| anyhow::anyhow!("{err:#}"))?;
                let index = compiler
                    .compile(&at, &mut self.schemas)
                    .map_err(|err| anyhow::anyhow!("{at}: {err:#}"))?;
                self.compiled.push((at.clone(), index));
                index
            }
        };
        let valid = self.schemas.validate(body, index);
        valid.map_err(|err| anyhow::anyhow!("{path} {status}: {err:#}\n{body:#}"))
    }
}
