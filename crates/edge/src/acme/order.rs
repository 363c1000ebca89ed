//! One certificate, from the order to the chain.

use std::{io, time::Duration};

use instant_acme::{
    Account, AuthorizationStatus, ChallengeType, Error, Identifier, NewOrder, Order, OrderStatus,
    RetryPolicy,
};

use super::{Proof, TxtError, TxtRecords};
use crate::{
    challenges::{Challenges, Shown},
    tls::BadCertificate,
};

/// How long the authority may take to look, and to write the certificate.
const PATIENCE: RetryPolicy = RetryPolicy::new().timeout(Duration::from_secs(120));

/// The longest host, in bytes. With [whose it is](super::Want::whose) it is a file's name, of at most 255 bytes, and
/// with `_acme-challenge` a record's, of at most 253.
const MAX_HOST: usize = 200;

/// A private key and the chain of its certificate.
pub(super) struct Pem {
    pub(super) key: String,
    pub(super) chain: String,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub(super) enum OrderError {
    #[error("{0:?} is not a host that can have a certificate")]
    Host(String),
    #[error(
        "{0} has {bytes} bytes, and hosts of at most {MAX_HOST} can have a certificate from an authority; bring one, or shorten it",
        bytes = .0.len()
    )]
    TooLong(String),
    #[error("a wildcard can be proved by DNS only")]
    Wildcard,
    #[error("there is nowhere to set DNS records")]
    NoRecords,
    #[error("what is kept on disk was not read or written")]
    Kept(#[source] io::Error),
    #[error("the account with the certificate authority was not opened")]
    Account(#[source] Error),
    #[error("the certificate authority did not serve the order")]
    Authority(#[from] Error),
    #[error("the certificate authority offers no proof by {0:?}")]
    NoChallenge(Proof),
    #[error("the DNS record {name} was not set")]
    Record { name: String, source: TxtError },
    #[error("the certificate authority did not find the proof for {host}: {why}")]
    Refused { host: String, why: String },
    #[error("the certificate authority's certificate can not be used")]
    Bad(#[from] BadCertificate),
    #[error("the certificate authority's certificate is for another host")]
    Other,
    #[error("the order was not served within {} s", .0.as_secs())]
    Slow(Duration),
}

impl OrderError {
    /// Whether the authority asked for fewer orders.
    pub(super) fn rate_limited(&self) -> bool {
        self.is("rateLimited")
    }

    /// Whether the authority does not know the account.
    pub(super) fn account_unknown(&self) -> bool {
        self.is("accountDoesNotExist")
    }

    fn is(&self, kind: &str) -> bool {
        let (Self::Authority(Error::Api(problem)) | Self::Account(Error::Api(problem))) = self
        else {
            return false;
        };
        let said = problem.r#type.as_deref();
        said.and_then(|said| said.strip_prefix("urn:ietf:params:acme:error:")) == Some(kind)
    }
}

/// What the authority is shown, until it has looked.
#[derive(Default)]
struct Proofs {
    answers: Vec<Shown>,
    records: Vec<(String, String)>,
}

/// Orders a certificate for `host`, which is proved to be served here by `proof`. Both have been [`check`]ed.
pub(super) async fn order(
    account: &Account,
    host: &str,
    proof: Proof,
    challenges: &Challenges,
    records: Option<&dyn TxtRecords>,
) -> Result<Pem, OrderError> {
    let identifiers = [Identifier::Dns(host.to_owned())];
    let mut order = account.new_order(&NewOrder::new(&identifiers)).await?;
    let mut proofs = Proofs::default();
    let ready = prove(&mut order, host, proof, challenges, records, &mut proofs).await;
    drop(proofs.answers);
    for (name, value) in proofs.records {
        if let Some(records) = records
            && let Err(err) = records.remove(&name, &value).await
        {
            tracing::warn!(name, error = %err, "the DNS record {name} was not removed");
        }
    }
    ready?;
    let key = order.finalize().await?;
    let chain = order.poll_certificate(&PATIENCE).await?;
    Ok(Pem { key, chain })
}

/// Whether the host can have a certificate at all: names come from publishers, and become file names here.
pub(super) fn check(host: &str, proof: Proof) -> Result<(), OrderError> {
    let name = host.strip_prefix("*.").unwrap_or(host);
    if name.len() != host.len() && proof != Proof::Dns01 {
        return Err(OrderError::Wildcard);
    }
    let letter = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(letter)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if !name.contains('.') || !name.split('.').all(label) {
        return Err(OrderError::Host(host.to_owned()));
    }
    if host.len() > MAX_HOST {
        return Err(OrderError::TooLong(host.to_owned()));
    }
    Ok(())
}

/// Shows all proofs that the authority asks for, and waits until it has seen them.
async fn prove(
    order: &mut Order,
    host: &str,
    proof: Proof,
    challenges: &Challenges,
    records: Option<&dyn TxtRecords>,
    proofs: &mut Proofs,
) -> Result<(), OrderError> {
    let kind = match proof {
        Proof::Http01 => ChallengeType::Http01,
        Proof::Dns01 => ChallengeType::Dns01,
    };
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        // It may remember one from an earlier order.
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        let mut challenge =
            authorization.challenge(kind.clone()).ok_or(OrderError::NoChallenge(proof))?;
        let answer = challenge.key_authorization();
        match proof {
            Proof::Http01 => {
                let shown = challenges.show(host, &challenge.token, answer.as_str());
                proofs.answers.push(shown);
            }
            Proof::Dns01 => {
                let records = records.ok_or(OrderError::NoRecords)?;
                let name = host.strip_prefix("*.").unwrap_or(host);
                let (name, value) = (format!("_acme-challenge.{name}"), answer.dns_value());
                proofs.records.push((name.clone(), value.clone()));
                let added = records.add(&name, &value).await;
                added.map_err(|source| OrderError::Record { name, source })?;
            }
        }
        challenge.set_ready().await?;
    }
    match order.poll_ready(&PATIENCE).await {
        Ok(OrderStatus::Ready) => Ok(()),
        Ok(_) => Err(refused(order, host).await),
        // Some authorities say it with the order.
        Err(Error::Api(_)) if order.state().error.is_some() => Err(refused(order, host).await),
        Err(err) => Err(err.into()),
    }
}

/// What the authority did not like, in its own words.
async fn refused(order: &mut Order, host: &str) -> OrderError {
    let mut why = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let refreshed = match authorization {
            Ok(mut authorization) => authorization.refresh().await.map(|state| {
                let errors =
                    state.challenges.iter().filter_map(|challenge| challenge.error.as_ref());
                errors.map(ToString::to_string).collect::<Vec<_>>()
            }),
            Err(err) => Err(err),
        };
        match refreshed {
            Ok(errors) => why.extend(errors),
            Err(err) => return err.into(),
        }
    }
    let why = if why.is_empty() { "it does not say why".to_owned() } else { why.join("; ") };
    OrderError::Refused { host: host.to_owned(), why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_the_folder_are_none() {
        let longest = "a.".repeat(96) + "aexample";
        let longer = format!("{longest}s");
        let error = format!("{longer} has 201 bytes, and hosts of at most 200 can have");
        for (host, proof, error) in [
            ("a.example", Proof::Http01, None),
            ("xn--bcher-kva.example", Proof::Http01, None),
            ("*.a.example", Proof::Dns01, None),
            (&longest, Proof::Dns01, None),
            (&longer, Proof::Dns01, Some(&*error)),
            ("*.a.example", Proof::Http01, Some("a wildcard can be proved by DNS only")),
            ("localhost", Proof::Http01, Some("\"localhost\" is not a host")),
            ("", Proof::Http01, Some("\"\" is not a host")),
            ("../a.example", Proof::Http01, Some("\"../a.example\" is not a host")),
            ("a/b.example", Proof::Http01, Some("\"a/b.example\" is not a host")),
            ("*.*.example", Proof::Dns01, Some("\"*.*.example\" is not a host")),
            ("_wildcard.example", Proof::Dns01, Some("\"_wildcard.example\" is not a host")),
            ("-a.example", Proof::Http01, Some("\"-a.example\" is not a host")),
            ("A.example", Proof::Http01, Some("\"A.example\" is not a host")),
            ("a..example", Proof::Http01, Some("\"a..example\" is not a host")),
        ] {
            let checked = check(host, proof).err().map(|err| err.to_string());
            let same = match (&checked, error) {
                (Some(checked), Some(error)) => checked.starts_with(error),
                (checked, error) => checked.is_none() && error.is_none(),
            };
            assert!(same, "{host}: {checked:?}");
        }
    }
}
