//! The rights of roles other than ours, as text for a DBA to read and run.
//!
//! A publisher needs nothing beyond its GRANTs: the triggers on the ledger either need no rights or run with ours.

/// What a role is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Publishes events and sees none.
    Publisher,
    /// Sees everything, changes nothing.
    Reader,
    /// Sees everything; gives orders.
    Operator,
}

/// What people read; the ledger is the only table among the views.
pub const RELATIONS: [&str; 11] =
    ["events", "sagas", "steps", "attempts", "commands", "human_tasks", "object_locks", "definitions", "services", "workers", "signing_keys"];

const EMIT: &str = "syncor.emit(text, jsonb, text, text, text, text, text)";

/// What operators call. The last two stand on a callback token, which is a proof of its own.
pub const ORDERS: [&str; 10] = [
    "cancel(uuid, text)",
    "pause(uuid, text)",
    "resume(uuid, text)",
    "abort(uuid, text)",
    "retry(uuid, text, text)",
    "skip(uuid, text, text)",
    "decide(uuid, text, text, jsonb)",
    "fork(uuid, text, text)",
    "complete(text, text, jsonb, jsonb, text, text)",
    "beat(text, bigint, bigint, text)",
];

/// The statements that give `role` the rights of `kind`, one a line. Granting again changes nothing.
#[must_use]
pub fn grants(role: &str, kind: Kind) -> String {
    let role = quote(role);
    let mut statements = vec![format!("grant usage on schema syncor to {role};")];
    match kind {
        Kind::Publisher => {
            statements.push(format!(
                "grant insert (type, data, topic, subject, source, correlation_id, causation_id, dedupe_key) on syncor.events to {role};"
            ));
            statements.push(format!("grant select (id) on syncor.events to {role};"));
            statements.push(format!("grant execute on function {EMIT} to {role};"));
        }
        Kind::Reader | Kind::Operator => {
            for relation in RELATIONS {
                statements.push(format!("grant select on syncor.{relation} to {role};"));
            }
            statements.push(format!("grant execute on function syncor.why(uuid) to {role};"));
            if kind == Kind::Operator {
                statements.extend(ORDERS.map(|function| format!("grant execute on function syncor.{function} to {role};")));
            }
        }
    }
    statements.join("\n") + "\n"
}

/// An identifier as Postgres quotes it.
fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_quoted_whatever_it_is_called() {
        let text = grants(r#"me"; drop schema syncor; --"#, Kind::Reader);
        assert!(text.starts_with(r#"grant usage on schema syncor to "me""; drop schema syncor; --";"#), "{text}");
    }
}
