//! A pod's site, as a visitor sees it.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, ensure};
use reqwest::{Certificate, Client, ClientBuilder, Method, Response, StatusCode, header};

/// A host, at the address at which it is served.
#[derive(Debug, Clone)]
pub struct Site {
    client: Client,
    url: String,
    host: String,
}

fn client() -> ClientBuilder {
    Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        // A connection that the other side closed meanwhile is no outage.
        .pool_max_idle_per_host(0)
        .timeout(Duration::from_secs(5))
}

impl Site {
    /// `host` at `address`.
    ///
    /// # Errors
    /// When there is no HTTP client to be had.
    pub fn new(address: SocketAddr, host: &str) -> anyhow::Result<Self> {
        Ok(Self {
            client: client().build()?,
            url: format!("http://{address}"),
            host: host.to_owned(),
        })
    }

    /// The same over HTTPS, for a visitor who trusts `root` (PEM) alone.
    ///
    /// # Errors
    /// When there is no HTTP client to be had.
    pub fn secure(address: SocketAddr, host: &str, root: &[u8]) -> anyhow::Result<Self> {
        let root = Certificate::from_pem(root)?;
        let client = client().tls_certs_only([root]).resolve(host, address).build()?;
        let host = format!("{host}:{}", address.port());
        Ok(Self { client, url: format!("https://{host}"), host })
    }

    /// The same, for what takes its time.
    ///
    /// # Errors
    /// When there is no HTTP client to be had.
    pub fn patient(&self) -> anyhow::Result<Self> {
        let client = client().timeout(Duration::from_secs(120)).build()?;
        Ok(Self { client, ..self.clone() })
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let url = format!("{}{path}", self.url);
        self.client.request(method, url).header(header::HOST, &self.host)
    }

    /// Asks for `path`; the answer, as it begins.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn begin(&self, path: &str) -> anyhow::Result<Response> {
        Ok(self.request(Method::GET, path).send().await?)
    }

    /// Asks for `path`; what comes back, whatever it is.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn ask(&self, path: &str) -> anyhow::Result<(StatusCode, String)> {
        let response = self.request(Method::GET, path).send().await?;
        Ok((response.status(), response.text().await?))
    }

    /// What is at `path`.
    ///
    /// # Errors
    /// When nobody answers, or with another status than 200.
    pub async fn get(&self, path: &str) -> anyhow::Result<String> {
        let (status, text) = self.ask(path).await?;
        ensure!(status == StatusCode::OK, "{}{path} answers {status}: {text}", self.host);
        Ok(text)
    }

    /// Signs the guestbook, as its form does.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub async fn sign(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let page = self.request(Method::GET, "/").send().await?.error_for_status()?;
        let cookie = page.headers().get(header::SET_COOKIE).context("no session was given")?;
        let cookie = cookie.to_str()?.split(';').next().unwrap_or_default().to_owned();
        let page = page.text().await?;
        let token = page
            .split_once("name=\"token\" value=\"")
            .and_then(|(_, rest)| rest.split_once('"'))
            .context("the page has no form")?
            .0;
        let response = self
            .request(Method::POST, "/sign")
            .header(header::COOKIE, cookie)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(format!("name={name}&text={text}&token={token}"))
            .send()
            .await?;
        let status = response.status();
        ensure!(status == StatusCode::SEE_OTHER, "signing answers {status}");
        Ok(())
    }

    /// What the guestbook's visitors wrote, the newest first.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn texts(&self) -> anyhow::Result<Vec<String>> {
        let entries: serde_json::Value = serde_json::from_str(&self.get("/api/entries").await?)?;
        let entries = entries.as_array().context("the entries are no list")?;
        let text = |entry: &serde_json::Value| entry["text"].as_str().map(str::to_owned);
        entries.iter().map(|entry| text(entry).context("an entry has no text")).collect()
    }
}
