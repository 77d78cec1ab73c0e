//! The legal moves as the migrations have them, and as the machine makes them.

use std::collections::BTreeSet;
use std::path::Path;

pub type Legal = BTreeSet<(String, String)>;

/// The moves of the trigger `name`, as the newest migration has it that makes it.
///
/// # Panics
/// When no migration does, or its list cannot be read.
pub fn of_trigger(name: &str) -> Legal {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
    let mut files: Vec<_> = std::fs::read_dir(folder).expect("migrations").map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    let texts = files.iter().map(|file| std::fs::read_to_string(file).expect("text"));
    let newest = texts.rev().find(|text| start(text, name).is_some()).unwrap_or_else(|| panic!("no migration makes the trigger {name}"));
    legal(&newest, name)
}

fn start(sql: &str, name: &str) -> Option<usize> {
    [format!("create trigger {name} "), format!("create or replace trigger {name} ")].iter().filter_map(|opening| sql.rfind(opening.as_str())).max()
}

/// The moves of the trigger `name` in the text of a migration.
///
/// # Panics
/// When the text has no such trigger.
pub fn legal(sql: &str, name: &str) -> Legal {
    let start = start(sql, name).unwrap_or_else(|| panic!("no trigger {name}"));
    let list = sql[start..].split_once("all (array[").and_then(|(_, rest)| rest.split_once("])")).map(|(list, _)| list);
    let words = list.unwrap_or_else(|| panic!("trigger {name} has no list of moves")).split('\'').skip(1).step_by(2);
    words.map(|word| word.split_once('>').map(|(from, to)| (from.to_owned(), to.to_owned())).unwrap_or_else(|| panic!("{word} is no move"))).collect()
}

/// The lines `saga running>completed` of `legal_moves.txt`: every move that one write of the machine can make.
///
/// # Panics
/// When a line says something else.
pub fn of_machine(what: &str) -> Legal {
    let lines = include_str!("legal_moves.txt").lines().filter(|line| !line.starts_with('#'));
    let moves = lines.map(|line| line.split_once(' ').unwrap_or_else(|| panic!("{line}"))).filter(|(kind, _)| *kind == what);
    moves.map(|(_, words)| words.split_once('>').map(|(from, to)| (from.to_owned(), to.to_owned())).unwrap_or_else(|| panic!("{words}"))).collect()
}
