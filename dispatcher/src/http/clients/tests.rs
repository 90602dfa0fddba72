use std::time::Duration;

use dispatcher_core::address::AddressPolicy;
use dispatcher_core::table::TlsIdentity;
use rcgen::{CertificateParams, KeyPair};

use super::*;
use crate::http::resolve::{GuardedResolver, ResolverConfig, SystemLookup};

fn clients(clients_max: usize) -> Arc<IdentityClients> {
    let policy = Arc::new(AddressPolicy::public_https());
    IdentityClients::new(
        Factory::new(GuardedResolver::new(policy, ResolverConfig::default(), SystemLookup)),
        clients_max,
    )
}

/// An identity like no other.
fn identity() -> Identity {
    let authority = CertificateParams::default().self_signed(&KeyPair::generate().unwrap()).unwrap();
    Identity::new(TlsIdentity { authorities: Some(authority.pem().into()), client: None })
}

/// Which of these have a client.
fn kept(clients: &IdentityClients, identities: &[Identity]) -> Vec<bool> {
    let kept = clients.kept();
    identities.iter().map(|identity| kept.slots.contains_key(&identity.fingerprint())).collect()
}

#[tokio::test]
async fn the_clients_that_were_used_last_are_kept() {
    let clients = clients(2);
    let identities = [identity(), identity(), identity()];
    for index in [0, 1, 0, 2] {
        clients.of(&identities[index]).await.unwrap();
        assert!(clients.count() <= 2);
    }
    assert_eq!(kept(&clients, &identities), [true, false, true]);
    clients.of(&identities[1]).await.unwrap();
    assert_eq!(kept(&clients, &identities), [false, true, true]);
}

#[tokio::test]
async fn a_client_is_built_once_for_all_who_ask() {
    let clients = clients(8);
    let identity = identity();
    let asking = (0..16).map(|_| clients.of(&identity));
    assert!(futures::future::join_all(asking).await.iter().all(Result::is_ok));
    assert_eq!(clients.count(), 1);
    let first = Arc::clone(&clients.kept().slots[&identity.fingerprint()].client);
    clients.of(&identity).await.unwrap();
    assert!(Arc::ptr_eq(&first, &clients.slot(identity.fingerprint())) && first.initialized());
}

#[tokio::test]
async fn what_is_not_used_for_its_lifetime_is_dropped() {
    let clients = clients(8);
    let identities = [identity(), identity()];
    clients.of(&identities[0]).await.unwrap();
    clients.of(&identities[1]).await.unwrap();
    let used_at = clients.kept().slots[&identities[1].fingerprint()].used_at;
    let moment = Duration::from_nanos(1);
    assert!(!clients.drop_idle(used_at + IDENTITY_CLIENT_LIFETIME - moment));
    assert_eq!(kept(&clients, &identities), [false, true]);
    assert!(clients.drop_idle(used_at + IDENTITY_CLIENT_LIFETIME));
    assert_eq!(kept(&clients, &identities), [false, false]);
}

#[tokio::test]
async fn an_identity_that_cannot_be_used_is_refused_each_time_and_shuts_out_no_other() {
    let clients = clients(1);
    let broken = Identity::new(TlsIdentity { authorities: Some(String::from("nothing").into()), client: None });
    for _ in 0..2 {
        assert!(matches!(clients.of(&broken).await, Err(NotMade::Identity(_))));
        assert!(clients.of(&identity()).await.is_ok());
        assert_eq!(clients.count(), 1);
    }
}
