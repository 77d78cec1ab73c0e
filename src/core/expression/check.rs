//! What an expression may name: looked up in its syntax tree before it is ever evaluated.

use std::collections::BTreeMap;

use cel::common::ast::{EntryExpr, Expr, LiteralValue};
use cel::parser::Expression as Tree;

use super::super::nearest::nearest;
use super::Root;
use super::value::Parts;

/// Operators may nest this deeply in the tree. Evaluation is recursive: a debug build takes 38 KB for a level, and a worker's thread has 2 MiB.
pub(super) const TREE_DEPTH_MAX: usize = 32;
/// A variable may be followed by so many fields.
const FIELDS_MAX: usize = 64;
/// `exists`, `map` and the like may nest this deeply: each level multiplies the cost by the length of a list.
const LOOPS_MAX: usize = 2;

/// Functions of the standard library, methods included.
pub(super) const FUNCTIONS: &[&str] = &[
    "bool",
    "bytes",
    "contains",
    "double",
    "duration",
    "dyn",
    "endsWith",
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
    "getFullYear",
    "getHours",
    "getMilliseconds",
    "getMinutes",
    "getMonth",
    "getSeconds",
    "int",
    "matches",
    "size",
    "startsWith",
    "string",
    "timestamp",
    "type",
    "uint",
];
/// Macros: known words, expanded by the parser when their arguments fit.
const MACROS: &[&str] = &["all", "exists", "exists_one", "filter", "has", "map"];
/// Names of types that stand as values: `type(data.n) == int`.
const TYPES: &[&str] = &["bool", "bytes", "double", "int", "list", "map", "null_type", "string", "type", "uint"];

/// What an expression looks at, and how expensive its loops are.
#[derive(Clone, Debug, Default)]
pub(super) struct Uses {
    /// Parts of each variable.
    pub(super) roots: BTreeMap<Root, Parts>,
    /// Number of loops.
    pub(super) loops: u32,
    /// Deepest nesting of loops; `in` inside a loop is one more.
    pub(super) loop_depth: u32,
}

/// A finding: where it is, and what is wrong.
pub(super) struct Finding {
    /// The node it is about; its place is that of its first token, for a call `(`, for a field `.`.
    pub(super) node: u64,
    /// The word that stands before (a function) or behind (a field) that token.
    pub(super) word: Word,
    /// What is wrong.
    pub(super) message: String,
}

/// Where the word of a finding stands.
pub(super) enum Word {
    /// It is the token.
    Here,
    /// Right behind the token.
    Behind,
    /// Right before the token, so many bytes long.
    Before(usize),
}

/// Checks the names in `tree` and reports what it uses.
pub(super) fn check(tree: &Tree, roots: &[Root], steps: Option<&[&str]>) -> Result<Uses, Finding> {
    if let Some(node) = deepest(tree) {
        return Err(Finding { node, word: Word::Here, message: format!("the expression nests more than {TREE_DEPTH_MAX} deep: split it") });
    }
    let mut walk = Walk { roots, steps, bound: Vec::new(), uses: Uses::default(), depth: 0 };
    walk.expression(tree)?;
    Ok(walk.uses)
}

/// The node that lies too deep, found without recursion: the parser makes trees of thousands of levels from `a+a+a…`.
fn deepest(tree: &Tree) -> Option<u64> {
    let mut open = vec![(tree, 1)];
    while let Some((node, depth)) = open.pop() {
        if depth > TREE_DEPTH_MAX {
            return Some(node.id);
        }
        // The fields of a variable are looked up in a loop, not level by level.
        match path(node) {
            Some((_, fields)) if fields.len() <= FIELDS_MAX => {}
            Some(_) => return Some(node.id),
            None => children(node, |child| open.push((child, depth + 1))),
        }
    }
    None
}

fn children<'a>(node: &'a Tree, mut visit: impl FnMut(&'a Tree)) {
    match &node.expr {
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => {}
        Expr::Call(call) => call.target.as_deref().into_iter().chain(&call.args).for_each(visit),
        Expr::Comprehension(inner) => {
            [&inner.iter_range, &inner.accu_init, &inner.loop_cond, &inner.loop_step, &inner.result].into_iter().for_each(visit);
        }
        Expr::List(list) => list.elements.iter().for_each(visit),
        Expr::Select(select) => visit(&select.operand),
        Expr::Map(map) => map.entries.iter().for_each(|entry| entry_children(&entry.expr, &mut visit)),
        Expr::Struct(inner) => inner.entries.iter().for_each(|entry| entry_children(&entry.expr, &mut visit)),
    }
}

fn entry_children<'a>(entry: &'a EntryExpr, visit: &mut impl FnMut(&'a Tree)) {
    match entry {
        EntryExpr::StructField(field) => visit(&field.value),
        EntryExpr::MapEntry(entry) => {
            visit(&entry.key);
            visit(&entry.value);
        }
    }
}

struct Walk<'a> {
    roots: &'a [Root],
    steps: Option<&'a [&'a str]>,
    /// Variables of the loops around.
    bound: Vec<&'a str>,
    uses: Uses,
    depth: u32,
}

impl<'a> Walk<'a> {
    fn expression(&mut self, node: &'a Tree) -> Result<(), Finding> {
        if let Some((root, path)) = path(node)
            && let Expr::Ident(name) = &root.expr
            && !self.is_bound(name)
        {
            return self.variable(root.id, name, &path);
        }
        let fail = |message| Err(Finding { node: node.id, word: Word::Here, message });
        match &node.expr {
            Expr::Call(call) => {
                let name = call.func_name.as_str();
                if name == "@in" && self.depth > 0 {
                    self.uses.loop_depth = self.uses.loop_depth.max(self.depth + 1);
                }
                let refuse = |message| Err(Finding { node: node.id, word: Word::Before(name.len()), message });
                if MACROS.contains(&name) {
                    return refuse(format!("`{name}` does not take these arguments"));
                }
                let operator = !name.starts_with(|first: char| first.is_ascii_alphabetic());
                if !operator && !FUNCTIONS.contains(&name) {
                    return refuse(unknown("function", name, FUNCTIONS.iter().chain(MACROS).copied()));
                }
            }
            Expr::Comprehension(inner) => {
                self.expression(&inner.iter_range)?;
                self.uses.loops += 1;
                self.depth += 1;
                self.uses.loop_depth = self.uses.loop_depth.max(self.depth);
                if usize::try_from(self.depth).is_ok_and(|depth| depth > LOOPS_MAX) {
                    return fail(format!("loops (`all`, `exists`, `filter`, `map`) nest more than {LOOPS_MAX} deep"));
                }
                let bound = self.bound.len();
                self.bound.extend([inner.iter_var.as_str(), inner.accu_var.as_str()]);
                self.bound.extend(inner.iter_var2.as_deref());
                for part in [&inner.accu_init, &inner.loop_cond, &inner.loop_step, &inner.result] {
                    self.expression(part)?;
                }
                self.bound.truncate(bound);
                self.depth -= 1;
                return Ok(());
            }
            Expr::Struct(inner) => return fail(format!("`{}{{…}}`: only maps such as {{'key': value}} can be made", inner.type_name)),
            _ => {}
        }
        let mut found = Vec::new();
        children(node, |child| found.push(child));
        found.into_iter().try_for_each(|child| self.expression(child))
    }

    fn is_bound(&self, name: &str) -> bool {
        name.starts_with('@') || self.bound.contains(&name)
    }

    fn variable(&mut self, node: u64, name: &str, path: &[(&str, u64)]) -> Result<(), Finding> {
        let fail = |message| Err(Finding { node, word: Word::Here, message });
        let Some(root) = Root::ALL.into_iter().find(|root| root.name() == name) else {
            if path.is_empty() && TYPES.contains(&name) {
                return Ok(());
            }
            return fail(unknown("variable", name, self.roots.iter().map(|root| root.name())));
        };
        if !self.roots.contains(&root) {
            let known: Vec<_> = self.roots.iter().map(|root| format!("`{}`", root.name())).collect();
            return fail(format!("`{name}` is not available here: this expression sees {}", known.join(", ")));
        }
        if root == Root::Steps
            && let (Some(steps), Some((step, node))) = (self.steps, path.first())
            && !steps.contains(step)
        {
            return Err(Finding { node: *node, word: Word::Behind, message: unknown("step", step, steps.iter().copied()) });
        }
        let (place, field) = if root == Root::Steps { ("a step", path.get(1)) } else { (name, path.first()) };
        if let (Some((field, node)), fields) = (field, root.fields())
            && !fields.is_empty()
            && !fields.contains(field)
        {
            let help = nearest(field, fields.iter().copied())
                .map_or_else(|| format!("it has {}", fields.join(", ")), |near| format!("did you mean `{near}`?"));
            return Err(Finding { node: *node, word: Word::Behind, message: format!("{place} has no `{field}`: {help}") });
        }
        let path: Vec<_> = path.iter().map(|(field, _)| *field).collect();
        self.uses.roots.entry(root).or_default().add(&path);
        Ok(())
    }
}

/// A field's name, and the node that selects it.
pub(super) type Field<'a> = (&'a str, u64);

/// The variable, and the fields that a chain such as `data.a["b"].c` names.
pub(super) fn path(node: &Tree) -> Option<(&Tree, Vec<Field<'_>>)> {
    let (mut fields, mut node) = (Vec::new(), node);
    loop {
        match &node.expr {
            Expr::Ident(_) => {
                fields.reverse();
                return Some((node, fields));
            }
            Expr::Select(select) => {
                fields.push((select.field.as_str(), node.id));
                node = &select.operand;
            }
            Expr::Call(call) if call.func_name == "_[_]" && call.args.len() == 2 => {
                let Expr::Literal(LiteralValue::String(key)) = &call.args[1].expr else { return None };
                fields.push((key.inner(), node.id));
                node = &call.args[0];
            }
            _ => return None,
        }
    }
}

fn unknown<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    match nearest(name, known.clone()) {
        Some(near) => format!("unknown {what} `{name}`: did you mean `{near}`?"),
        None if what == "function" => format!("unknown {what} `{name}`"),
        None => format!("unknown {what} `{name}`: there is {}", known.collect::<Vec<_>>().join(", ")),
    }
}
