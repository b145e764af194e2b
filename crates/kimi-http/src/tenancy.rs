//! What keeps clients apart inside the engine: whose cached prefixes they find, and their turn in the queue.

use kimi_engine::{CacheScope, Standing, Tenant};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::auth::Caller;

/// The secret that names are derived from, so that nobody outside can compute another's.
pub(crate) struct Tenancy {
    secret: [u8; 32],
    prefix_cache: bool,
}

impl Tenancy {
    /// With a new secret unless one is given. Without `prefix_cache`, requests find nothing and leave nothing.
    pub(crate) fn new(prefix_cache: bool, secret: Option<[u8; 32]>) -> Self {
        Self { secret: secret.unwrap_or_else(Self::random_secret), prefix_cache }
    }

    fn random_secret() -> [u8; 32] {
        let mut random = Sha256::new();
        // 244 random bits in all.
        for _ in 0..2 {
            random.update(Uuid::new_v4().as_bytes());
        }
        random.finalize().into()
    }

    /// What a caller is to the engine.
    pub(crate) fn of(&self, caller: Caller) -> TenantKey {
        let key = Sha256::new_with_prefix(self.secret).chain_update(caller.digest()).finalize();
        TenantKey { key: key.into(), prefix_cache: self.prefix_cache }
    }
}

/// A caller, as the engine may know it.
#[derive(Clone, Copy)]
pub(crate) struct TenantKey {
    key: [u8; 32],
    prefix_cache: bool,
}

impl TenantKey {
    /// Requests of the same caller with the same salt share computed prefixes, and nobody else does.
    pub(crate) fn cache_scope(&self, salt: Option<&str>) -> Option<CacheScope> {
        let scope = Sha256::new_with_prefix(self.key).chain_update(salt.unwrap_or_default()).finalize();
        self.prefix_cache.then(|| CacheScope(scope.into()))
    }

    /// Each caller gets its share; a request may ask to go before or after others.
    pub(crate) fn standing(&self, priority: i64) -> Standing {
        let tenant = self.key.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let limits = (i64::from(i32::MIN), i64::from(i32::MAX));
        Standing { priority: priority.clamp(limits.0, limits.1) as i32, tenant: Tenant(tenant) }
    }
}
