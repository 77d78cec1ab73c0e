//! The legal moves as the migration has them.

use std::collections::BTreeSet;

/// The moves of the trigger `name` in the text of a migration.
///
/// # Panics
/// When the text has no such trigger.
pub fn legal(sql: &str, name: &str) -> BTreeSet<(String, String)> {
    let start = sql.find(&format!("create trigger {name} ")).unwrap_or_else(|| panic!("no trigger {name}"));
    let list = sql[start..].split_once("all (array[").and_then(|(_, rest)| rest.split_once("])")).map(|(list, _)| list);
    let words = list.unwrap_or_else(|| panic!("trigger {name} has no list of moves")).split('\'').skip(1).step_by(2);
    words.map(|word| word.split_once('>').map(|(from, to)| (from.to_owned(), to.to_owned())).unwrap_or_else(|| panic!("{word} is no move"))).collect()
}
