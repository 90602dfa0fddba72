//! The user contract: the resources that people write, and what the API server refuses.
//!
//! Read in this order: [`endpoint`], [`subscription`], [`replay`] and [`pool`] are the resources, [`condition`] is what they report, [`limits`]
//! is how large anything may be. [`definition`] turns the types into `CustomResourceDefinition`s, [`yaml`] prints those,
//! and [`admission`] treats a file the way an API server would treat it.

pub mod admission;
pub mod condition;
pub mod definition;
pub mod endpoint;
pub mod limits;
pub mod pool;
pub mod replay;
mod schema;
pub mod subscription;
pub mod yaml;

pub use endpoint::{Endpoint, EndpointSpec, EndpointStatus};
pub use pool::{DispatcherPool, DispatcherPoolSpec, DispatcherPoolStatus};
pub use replay::{Replay, ReplaySpec, ReplayStatus};
pub use subscription::{Subscription, SubscriptionSpec, SubscriptionStatus};

/// API group of every resource.
pub const GROUP: &str = "harborhook.dev";
/// The one served and stored version.
pub const VERSION: &str = "v1alpha1";
/// `apiVersion` of every resource: group and version.
pub const API_VERSION: &str = "harborhook.dev/v1alpha1";
/// Annotation whose change enables a disabled endpoint again, without a change of its spec.
pub const REQUESTED_AT_ANNOTATION: &str = "harborhook.dev/requestedAt";

/// The kinds of resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Where to deliver: [`Endpoint`].
    Endpoint,
    /// What to deliver again: [`Replay`].
    Replay,
    /// What to deliver: [`Subscription`].
    Subscription,
    /// By which dispatchers: [`DispatcherPool`].
    DispatcherPool,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Endpoint, Self::Subscription, Self::Replay, Self::DispatcherPool];

    /// The name that stands in `kind`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Endpoint => "Endpoint",
            Self::Replay => "Replay",
            Self::Subscription => "Subscription",
            Self::DispatcherPool => "DispatcherPool",
        }
    }

    /// Plural name in paths and permissions. Not the kind's own plural: `endpoints` is a core resource of Kubernetes.
    pub const fn plural(self) -> &'static str {
        match self {
            Self::Endpoint => "hookendpoints",
            Self::Replay => "hookreplays",
            Self::Subscription => "hooksubscriptions",
            Self::DispatcherPool => "hookpools",
        }
    }
}
