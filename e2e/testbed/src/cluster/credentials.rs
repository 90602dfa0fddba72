//! Who is who in the cluster: its authority, the certificates that this has signed, and kubeconfigs.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use anyhow::Result;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};

use super::{NODE_ADDRESS, NODE_NAME};

/// First address of the service range: the API server's Service.
const SERVICE_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// Names of the API server's Service.
const SERVICE_NAMES: [&str; 5] =
    ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local", "localhost"];
/// Group whose members may do everything.
const ADMINISTRATORS: &str = "system:masters";
/// Group of the kubelets.
const NODES: &str = "system:nodes";

/// Where the API server listens, for the node's programs.
const SERVER_INSIDE: &str = "https://127.0.0.1:6443";

/// All secrets of one cluster, in PEM. They last as long as it.
pub(crate) struct Credentials {
    authority: CertifiedIssuer<'static, KeyPair>,
    apiserver: Identity,
    admin: Identity,
    kubelet: Identity,
    service_account: KeyPair,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Credentials").finish_non_exhaustive()
    }
}

struct Identity {
    certificate: String,
    key: String,
}

impl Credentials {
    pub(crate) fn new() -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "testbed");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;

        let addresses = [Ipv4Addr::LOCALHOST, NODE_ADDRESS, SERVICE_ADDRESS];
        let mut params = CertificateParams::new(SERVICE_NAMES.map(str::to_owned))?;
        params.subject_alt_names.extend(addresses.map(|address| SanType::IpAddress(IpAddr::V4(address))));
        params.distinguished_name.push(DnType::CommonName, "kube-apiserver");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        Ok(Self {
            apiserver: Identity::new(&params, &authority)?,
            admin: Identity::client("admin", ADMINISTRATORS, &authority)?,
            kubelet: Identity::client(&format!("system:node:{NODE_NAME}"), NODES, &authority)?,
            service_account: KeyPair::generate()?,
            authority,
        })
    }

    /// Names and contents of the files that the node's programs read.
    pub(crate) fn files(&self) -> Vec<(&'static str, String)> {
        vec![
            ("ca.crt", self.authority.pem()),
            ("ca.key", self.authority.key().serialize_pem()),
            ("apiserver.crt", self.apiserver.certificate.clone()),
            ("apiserver.key", self.apiserver.key.clone()),
            ("admin.crt", self.admin.certificate.clone()),
            ("admin.key", self.admin.key.clone()),
            ("service-account.key", self.service_account.serialize_pem()),
            ("service-account.pub", self.service_account.public_key_pem()),
            ("admin.conf", self.kubeconfig(&self.admin, SERVER_INSIDE, "")),
            ("kubelet.conf", self.kubeconfig(&self.kubelet, SERVER_INSIDE, "")),
        ]
    }

    /// The administrator's kubeconfig. `node_process` is what [`super::Cluster`] finds the node by again.
    pub(crate) fn admin_kubeconfig(&self, server: &str, node_process: u32) -> String {
        let extensions = format!(
            "    extensions:\n    - name: {}\n      extension: {{{}: {node_process}}}\n",
            super::EXTENSION,
            super::NODE_PROCESS
        );
        self.kubeconfig(&self.admin, server, &extensions)
    }

    fn kubeconfig(&self, user: &Identity, server: &str, extensions: &str) -> String {
        let [authority, certificate, key] =
            [&self.authority.pem(), &user.certificate, &user.key].map(|pem| STANDARD.encode(pem));
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: testbed\n\
             clusters:\n- name: testbed\n  cluster:\n    server: {server}\n    \
             certificate-authority-data: {authority}\n{extensions}\
             users:\n- name: testbed\n  user:\n    client-certificate-data: {certificate}\n    client-key-data: {key}\n\
             contexts:\n- name: testbed\n  context: {{cluster: testbed, user: testbed}}\n"
        )
    }
}

impl Identity {
    fn client(name: &str, group: &str, authority: &CertifiedIssuer<'_, KeyPair>) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.distinguished_name.push(DnType::OrganizationName, group);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        Self::new(&params, authority)
    }

    fn new(params: &CertificateParams, authority: &CertifiedIssuer<'_, KeyPair>) -> Result<Self> {
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, authority)?;
        Ok(Self { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}
