//! `roadstead attest`: what a provider's machine can prove of itself.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use ::provider::wire::Attestation;
use alloy::primitives::{Address, B256, Signature};
use anyhow::{Context as _, bail, ensure};
use seal::{
    SealingPublicKey,
    attest::{
        Accepted, Attested, Collateral, Evidence, Kind, Measurement, Policy, Product, Subject, Tcb,
        Unattested, verify,
    },
};
use serde::Deserialize;

use crate::{client::Endpoint, output, settings::Settings};

/// Who is asked, and what is asked for.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The provider
    provider: Address,
    /// Fail unless this kind of hardware proves what runs there; `any` takes each kind
    #[arg(long, value_name = "KIND")]
    require: Option<Required>,
    /// Fail unless this is what runs there: 0x and 64 hexadecimal digits; may be given several times
    #[arg(long, value_name = "HASH", requires = "require")]
    measurement: Vec<Measurement>,
    /// What Intel publishes for the provider's platform, as a caching service (PCCS) writes it: a TDX quote is judged
    /// by it
    #[arg(long, value_name = "FILE")]
    collateral: Option<PathBuf>,
    /// The oldest firmware of AMD's processors that is taken, as TOML: `[milan]`, `bootloader = 4`, `tee = 0`,
    /// `snp = 24`, `microcode = 219`
    #[arg(long, value_name = "FILE")]
    oldest: Option<PathBuf>,
}

/// What is required.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Required {
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
enum Found {
    /// Hardware signed it, and it was judged.
    Attested(Box<Attested>),
    /// The provider's wallet signed it, which proves nothing of what runs there.
    Unattested,
}

/// Asks the provider and judges what it answers.
pub(crate) async fn run(settings: &Settings, args: &Args) -> anyhow::Result<()> {
    let chain = settings.connect().await?;
    let address = args.provider;
    let mut providers = chain.providers().await?;
    let view = providers
        .remove(&address)
        .with_context(|| format!("the Registry does not know a provider {address}"))?;
    let subject = Subject {
        nonce: rand::random(),
        chain_id: chain.id(),
        provider: address.into(),
        sealing_key: SealingPublicKey(view.listing.sealKey.0),
        tls_key: view.listing.tlsKey.0,
    };
    let endpoint = Endpoint::new(address, &view.listing)?;
    let answer = endpoint
        .attestation(B256::from(subject.nonce))
        .await
        .with_context(|| format!("provider {address} gave no attestation"))?;
    let found = match answer {
        Attestation::Evidence(evidence) => judge(args, evidence, &subject)?,
        Attestation::Unattested(statement) => {
            ensure!(
                signed(&statement, &subject),
                "provider {address} answers UNATTESTED, and not even its wallet signed that: its keys may be somebody \
                 else's"
            );
            Found::Unattested
        }
    };
    match (&found, args.require) {
        (Found::Unattested, Some(_)) => {
            bail!(
                "provider {address} is UNATTESTED, and --require asks for hardware that proves what it runs"
            )
        }
        (Found::Attested(attested), Some(required)) if !required.takes(attested.kind()) => {
            bail!(
                "provider {address} is attested by {}, and --require asks for another kind",
                attested.kind()
            )
        }
        (Found::Attested(_) | Found::Unattested, _) => (),
    }
    let value = serde_json::json!({
        "provider": address,
        "subject": subject,
        "attested": match &found {
            Found::Attested(attested) => serde_json::to_value(attested)?,
            Found::Unattested => serde_json::Value::Null,
        },
        "verdict": match &found {
            Found::Attested(_) => "attested",
            Found::Unattested => "UNATTESTED",
        },
    });
    output::show(settings.json, &value, || match &found {
        Found::Attested(attested) => format!("provider {address} is {attested}"),
        Found::Unattested => format!(
            "provider {address} is UNATTESTED: its wallet signed for the keys that the Registry has of it, and nothing \
             proves what its machine runs"
        ),
    })
}

fn judge(args: &Args, evidence: Evidence, subject: &Subject) -> anyhow::Result<Found> {
    let evidence = match (evidence, &args.collateral) {
        (Evidence::Tdx { quote, collateral: _ }, Some(path)) => {
            let text = read(path)?;
            let collateral: Collateral = serde_json::from_str(&text)
                .with_context(|| format!("{} is not a TDX collateral", path.display()))?;
            Evidence::Tdx { quote, collateral: Some(Box::new(collateral)) }
        }
        (evidence, _) => evidence,
    };
    let measurements = match args.measurement.as_slice() {
        [] => Accepted::Any,
        some => Accepted::OneOf(some.to_vec()),
    };
    let policy = Policy { measurements, oldest: oldest(args.oldest.as_deref())? };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    let provider = args.provider;
    let attested = verify(&evidence, subject, &policy, now)
        .with_context(|| format!("what provider {provider} shows is no attestation"))?;
    Ok(Found::Attested(Box::new(attested)))
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

    use super::*;

    #[test]
    fn only_the_wallet_itself_and_this_very_statement_count() {
        let wallet = PrivateKeySigner::random();
        let subject = Subject {
            nonce: [1; 32],
            chain_id: 1,
            provider: wallet.address().into(),
            sealing_key: SealingPublicKey([3; 32]),
            tls_key: [4; 32],
        };
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
}
