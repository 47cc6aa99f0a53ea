//! A policy is strict where it is silent, and can never admit everything.

use super::{MANIFEST, MemoryStore, codes, judged_by};
use crate::admission::{Policy, PolicyError};
use neap_sdk::ErrorCode;

#[test]
fn silence_is_strict_and_allow_all_is_refused() {
    assert_eq!(Policy::from_toml("").unwrap(), Policy::default());
    let relaxed = Policy::from_toml("require_sbom = false\nthreshold = 2").unwrap();
    assert_eq!(relaxed, Policy { require_signature: true, threshold: 2, require_sbom: false });
    assert!(matches!(Policy::from_toml("threshold = 0"), Err(PolicyError::ThresholdZero)));
    for bad in ["require_sboms = true", "require_sbom = \"no\"", "threshold = -1", "require_sbom"] {
        assert!(matches!(Policy::from_toml(bad), Err(PolicyError::Form(_))), "{bad}");
    }
    let all = Policy::from_toml("require_signature = false\nrequire_sbom = false");
    assert!(matches!(all, Err(PolicyError::AllowsEverything)));
}

#[test]
fn the_digest_names_the_policy() {
    let policy = Policy::default();
    assert_eq!(Policy::from_toml(&policy.to_toml()).unwrap().digest(), policy.digest());
    assert_ne!(Policy { threshold: 2, ..policy.clone() }.digest(), policy.digest());
}

#[tokio::test]
async fn a_policy_made_in_code_that_asks_for_nothing_still_refuses() {
    for policy in [
        Policy { require_signature: false, threshold: 1, require_sbom: false },
        Policy { require_signature: true, threshold: 0, require_sbom: false },
    ] {
        let verdict = judged_by(&MemoryStore::default(), &[], &policy, MANIFEST, &[]).await;
        assert_eq!(codes(&verdict), [ErrorCode::Policy]);
    }
}
