//! Login roles with no rights but those that a test grants. Roles belong to the whole cluster, so each has a name of its own.

use super::db::{TestDatabase, block_on, connect};

/// A role that is dropped, with what it owns in the test's database, at the end. Declare it after its database.
pub(crate) struct Role {
    pub(crate) name: String,
    /// The test's database as this role.
    pub(crate) url: String,
    admin: String,
}

/// A role that may connect and nothing else.
pub(crate) async fn role(db: &TestDatabase) -> Role {
    let admin = connect(&db.url).await;
    let name: String = admin.query_one("select 'Role_' || left(md5(gen_random_uuid()::text), 12)", &[]).await.unwrap().get(0);
    admin.batch_execute(&format!("create role \"{name}\" login password 'secret'")).await.unwrap();
    let mut url = url::Url::parse(&db.url).unwrap();
    url.set_username(&name).unwrap();
    url.set_password(Some("secret")).unwrap();
    Role { name, url: url.into(), admin: db.url.clone() }
}

impl Drop for Role {
    fn drop(&mut self) {
        let sql = format!("drop owned by \"{0}\" cascade; drop role \"{0}\"", self.name);
        let admin = self.admin.clone();
        block_on(async move { connect(&admin).await.batch_execute(&sql).await.ok() });
    }
}
