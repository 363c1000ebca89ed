//! `roadstead attest`: what a provider's machine can prove of itself.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use ::provider::wire::Attestation;
use alloy::primitives::{Address, B256, Signature};
use anyhow::{Context as _, bail, ensure};
use seal::attest::{
    Accepted, Attested, Collateral, Evidence, Kind, Measurement, Policy, Product, Subject, Tcb,
    Unattested, verify,
};
use serde::{Deserialize, Serialize};

use crate::{client::Endpoint, output, settings::Settings};

/// Who is asked, and what is asked for.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The provider
    provider: Address,
    #[command(flatten)]
    wanted: Wanted,
}

/// What evidence has to show.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wanted {
    /// Fail unless this kind of hardware proves what runs there; `any` takes each kind
    #[arg(long, value_name = "KIND")]
    pub(crate) require: Option<Required>,
    /// Fail unless this is what runs there: 0x and 64 hexadecimal digits; may be given several times
    #[arg(long, value_name = "HASH", requires = "require")]
    pub(crate) measurement: Vec<Measurement>,
    /// What Intel publishes for the provider's platform, as a caching service (PCCS) writes it: a TDX quote is judged
    /// by it
    #[arg(long, value_name = "FILE")]
    pub(crate) collateral: Option<PathBuf>,
    /// The oldest firmware of AMD's processors that is taken, as TOML: `[milan]`, `bootloader = 4`, `tee = 0`,
    /// `snp = 24`, `microcode = 219`
    #[arg(long, value_name = "FILE")]
    pub(crate) oldest: Option<PathBuf>,
}

/// What is required.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Required {
    /// Any hardware.
    Any,
    /// Intel TDX.
    Tdx,
    /// AMD SEV-SNP.
    SevSnp,
}

impl Required {
    fn takes(self, kind: Kind) -> bool {
        match self {
            Self::Any => true,
            Self::Tdx => kind == Kind::Tdx,
            Self::SevSnp => kind == Kind::SevSnp,
        }
    }
}

/// What was found out.
#[derive(Debug)]
pub(crate) enum Found {
    /// Hardware signed it, and it was judged.
    Attested(Box<Attested>),
    /// The provider's wallet signed it, which proves nothing of what runs there.
    Unattested,
}

/// Evidence that is not what is wanted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unwanted {
    /// There is none.
    #[error(
        "provider {0} is UNATTESTED, and hardware is asked for (--require, x-roadstead.attested) that proves what it runs"
    )]
    Unattested(Address),
    /// Of another kind.
    #[error("provider {0} is attested by {1}, and another kind is asked for")]
    Kind(Address, Kind),
    /// The statement is somebody else's, or about something else.
    #[error(
        "provider {0} answers UNATTESTED, and not even its wallet signed that: its keys may be somebody else's"
    )]
    Signature(Address),
}

impl Found {
    /// For people, and in JSON.
    pub(crate) fn verdict(&self) -> &'static str {
        match self {
            Self::Attested(_) => "attested",
            Self::Unattested => "UNATTESTED",
        }
    }

    /// What was attested, in JSON.
    pub(crate) fn value(&self) -> serde_json::Result<serde_json::Value> {
        match self {
            Self::Attested(attested) => serde_json::to_value(attested),
            Self::Unattested => Ok(serde_json::Value::Null),
        }
    }
}

/// Asks the provider and judges what it answers.
pub(crate) async fn run(settings: &Settings, args: &Args) -> anyhow::Result<()> {
    let chain = settings.connect().await?;
    let address = args.provider;
    let mut providers = chain.providers().await?;
    let view = providers
        .remove(&address)
        .with_context(|| format!("the Registry does not know a provider {address}"))?;
    let endpoint = Endpoint::new(address, &view.listing)?;
    let (found, subject) = args.wanted.ask(&endpoint, chain.id()).await?;
    let value = serde_json::json!({
        "provider": address,
        "subject": subject,
        "attested": found.value()?,
        "verdict": found.verdict(),
    });
    output::show(settings.json, &value, || match &found {
        Found::Attested(attested) => format!("provider {address} is {attested}"),
        Found::Unattested => format!(
            "provider {address} is UNATTESTED: its wallet signed for the keys that the Registry has of it, and nothing \
             proves what its machine runs"
        ),
    })
}

impl Wanted {
    /// Asks a provider for evidence about a fresh number, and judges it.
    pub(crate) async fn ask(
        &self,
        endpoint: &Endpoint,
        chain_id: u64,
    ) -> anyhow::Result<(Found, Subject)> {
        let subject = endpoint.subject(chain_id, rand::random());
        let address = endpoint.address;
        let answer = endpoint
            .attestation(B256::from(subject.nonce))
            .await
            .with_context(|| format!("provider {address} gave no attestation"))?;
        Ok((self.judge(answer, &subject)?, subject))
    }

    /// The same, where nothing but evidence will do.
    pub(crate) async fn attested(
        &self,
        endpoint: &Endpoint,
        chain_id: u64,
    ) -> anyhow::Result<Attested> {
        match self.ask(endpoint, chain_id).await?.0 {
            Found::Attested(attested) => Ok(*attested),
            Found::Unattested => bail!(Unwanted::Unattested(endpoint.address)),
        }
    }

    /// Judges what a provider answers.
    pub(crate) fn judge(&self, answer: Attestation, subject: &Subject) -> anyhow::Result<Found> {
        let provider = Address::from(subject.provider);
        let evidence = match answer {
            Attestation::Evidence(evidence) => evidence,
            Attestation::Unattested(statement) => {
                ensure!(signed(&statement, subject), Unwanted::Signature(provider));
                ensure!(self.require.is_none(), Unwanted::Unattested(provider));
                return Ok(Found::Unattested);
            }
        };
        let evidence = match (evidence, &self.collateral) {
            (Evidence::Tdx { quote, collateral: _ }, Some(path)) => {
                let text = read(path)?;
                let collateral: Collateral = serde_json::from_str(&text)
                    .with_context(|| format!("{} is not a TDX collateral", path.display()))?;
                Evidence::Tdx { quote, collateral: Some(Box::new(collateral)) }
            }
            (evidence, _) => evidence,
        };
        let measurements = match self.measurement.as_slice() {
            [] => Accepted::Any,
            some => Accepted::OneOf(some.to_vec()),
        };
        let policy = Policy { measurements, oldest: oldest(self.oldest.as_deref())? };
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
        let attested = verify(&evidence, subject, &policy, now)
            .with_context(|| format!("what provider {provider} shows is no attestation"))?;
        let kind = attested.kind();
        ensure!(
            self.require.is_none_or(|required| required.takes(kind)),
            Unwanted::Kind(provider, kind)
        );
        Ok(Found::Attested(Box::new(attested)))
    }

    /// Makes sure that the files that it names can be read, before anybody is asked.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        oldest(self.oldest.as_deref())?;
        self.collateral.as_deref().map(read).transpose()?;
        Ok(())
    }
}

/// The oldest firmware of each of AMD's products.
#[derive(Deserialize)]
#[serde(transparent)]
struct Oldest(BTreeMap<Product, Tcb>);

fn oldest(path: Option<&Path>) -> anyhow::Result<BTreeMap<Product, Tcb>> {
    let Some(path) = path else { return Ok(BTreeMap::new()) };
    let Oldest(oldest) = toml::from_str(&read(path)?)
        .with_context(|| format!("{} does not say which firmware is the oldest", path.display()))?;
    Ok(oldest)
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))
}

/// Whether the provider's wallet signed the statement (EIP-191).
fn signed(statement: &Unattested, subject: &Subject) -> bool {
    let message = Unattested::message(subject);
    Signature::from_raw(&statement.signature)
        .and_then(|signature| signature.recover_address_from_msg(message))
        .is_ok_and(|signer| signer == Address::from(subject.provider))
}

#[cfg(test)]
mod tests {
    use alloy::signers::{SignerSync as _, local::PrivateKeySigner};
    use seal::{SealingPublicKey, attest::Der};

    use super::*;

    fn subject(provider: Address) -> Subject {
        Subject {
            nonce: [1; 32],
            chain_id: 1,
            provider: provider.into(),
            sealing_key: SealingPublicKey([3; 32]),
            tls_key: [4; 32],
            visit: None,
        }
    }

    #[test]
    fn only_the_wallet_itself_and_this_very_statement_count() {
        let wallet = PrivateKeySigner::random();
        let subject = subject(wallet.address());
        let message = Unattested::message(&subject);
        let by = |signer: &PrivateKeySigner| Unattested {
            signature: signer.sign_message_sync(message.as_bytes()).unwrap().as_bytes(),
        };
        assert!(signed(&by(&wallet), &subject));
        assert!(!signed(&by(&PrivateKeySigner::random()), &subject));
        assert!(!signed(&by(&wallet), &Subject { nonce: [2; 32], ..subject }));
        assert!(!signed(&by(&wallet), &Subject { tls_key: [5; 32], ..subject }));
        assert!(!signed(&Unattested { signature: [0; 65] }, &subject));
    }

    #[test]
    fn firmware_is_named_by_product() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("oldest.toml");
        std::fs::write(&path, "[milan]\nbootloader = 4\ntee = 0\nsnp = 24\nmicrocode = 219\n")
            .unwrap();
        let found = oldest(Some(&path)).unwrap();
        assert_eq!(found[&Product::Milan].microcode, 219);
        std::fs::write(&path, "[rome]\nsnp = 1\n").unwrap();
        let err = format!("{:#}", oldest(Some(&path)).unwrap_err());
        assert!(err.contains("oldest.toml") && err.contains("rome"), "{err}");
    }

    /// A report of somebody else's chip, which AMD's keys vouch for.
    fn genuine() -> Attestation {
        let certificates = [
            &include_bytes!("../../seal/tests/samples/vcek-milan.der")[..],
            include_bytes!("../../seal/tests/samples/ask-milan.der"),
        ];
        Attestation::Evidence(Evidence::SevSnp {
            report: include_bytes!("../../seal/tests/samples/report-milan.bin").to_vec(),
            certificates: certificates.map(|der| Der(der.to_vec())).to_vec(),
        })
    }

    #[test]
    fn genuine_evidence_of_somebody_else_is_none() {
        let subject = subject(Address::repeat_byte(2));
        let folder = tempfile::tempdir().unwrap();
        let oldest = folder.path().join("oldest.toml");
        let firmware = "[milan]\nbootloader = 0\ntee = 0\nsnp = 0\nmicrocode = 0\n";
        std::fs::write(&oldest, firmware).unwrap();
        let wanted = Wanted { oldest: Some(oldest), ..Wanted::default() };
        let why = |wanted: &Wanted| {
            format!(
                "{:#}",
                wanted.judge(genuine(), &subject).map(|found| found.verdict()).unwrap_err()
            )
        };
        let said = why(&wanted);
        assert!(said.contains("genuine, but about another nonce"), "{said}");
        // Nothing is taken of a product whose oldest firmware was not named, or whose file cannot be read.
        let said = why(&Wanted::default());
        assert!(!said.contains("genuine"), "{said}");
        let gone = Wanted { oldest: Some("/none".into()), ..Wanted::default() };
        assert!(why(&gone).contains("/none cannot be read"), "{}", why(&gone));
        assert!(gone.check().is_err() && wanted.check().is_ok());
    }

    #[test]
    fn a_wallets_word_is_not_what_is_required() {
        let wallet = PrivateKeySigner::random();
        let subject = subject(wallet.address());
        let answer = |signer: &PrivateKeySigner| {
            let signature = signer.sign_message_sync(Unattested::message(&subject).as_bytes());
            Attestation::Unattested(Unattested { signature: signature.unwrap().as_bytes() })
        };
        let found = Wanted::default().judge(answer(&wallet), &subject).unwrap();
        assert_eq!(found.verdict(), "UNATTESTED");
        for require in [Required::Any, Required::Tdx, Required::SevSnp] {
            let wanted = Wanted { require: Some(require), ..Wanted::default() };
            let err = wanted.judge(answer(&wallet), &subject).unwrap_err();
            assert!(matches!(err.downcast_ref(), Some(Unwanted::Unattested(_))), "{err}");
        }
        let other = PrivateKeySigner::random();
        let err = Wanted::default().judge(answer(&other), &subject).unwrap_err();
        assert!(matches!(err.downcast_ref(), Some(Unwanted::Signature(_))), "{err}");
    }
}
