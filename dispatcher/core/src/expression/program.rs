//! From the text of an expression to what is evaluated, and what the interpreter may not do.
//!
//! The interpreter panics on some expressions (a struct, the negation of the smallest integer), copies a whole object
//! when a field of it is selected, answers `false` for a field of what is no object, goes through an object's keys in
//! an order that changes, and compiles a regular expression each time. So the tree is checked against what expressions
//! may use, and rewritten where that does better.

use std::sync::Arc;

use cel::common::ast::{CallExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators};
use cel::extractors::This;
use cel::objects::{Key, Opaque};
use cel::parser::Parser;
use cel::{Context, ExecutionError, Value};

use super::{Dialect, ExpressionError, ExpressionErrorReason};
use crate::limits::{EXPRESSION_DEPTH_MAX, EXPRESSION_REGEX_BYTES_MAX, EXPRESSION_TREE_DEPTH_MAX};

/// The one variable of an expression.
pub(super) const EVENT: &str = "event";
/// Our negation, which knows the smallest integer. A name that starts with `@` cannot be written in an expression.
pub(super) const FUNCTION_NEGATE: &str = "@negate";
/// Our regular expressions, which are compiled with the expression.
pub(super) const FUNCTION_MATCHES: &str = "@matches";
/// What `map` and `filter` go through: of an object its keys, sorted, and everything else as it is.
pub(super) const FUNCTION_ORDERED: &str = "@ordered";

const PATTERN_PREFIX: &str = "@pattern";
/// Steps for 64 bytes of text and one byte of a pattern, when every part of it is tried at every position: the worst
/// patterns measured take 130 us for 64 bytes and 200 parts, and a step is about 0.1 us.
const STEPS_PER_PATTERN_BYTE: u64 = 7;

/// Functions that an expression may call, each with the number of its arguments, the target included.
const FUNCTIONS: [(&str, std::ops::RangeInclusive<usize>); 11] = [
    ("size", 1..=1),
    ("contains", 2..=2),
    ("startsWith", 2..=2),
    ("endsWith", 2..=2),
    ("matches", 2..=2),
    ("string", 1..=1),
    ("int", 1..=1),
    ("uint", 1..=1),
    ("double", 1..=1),
    ("min", 1..=8),
    ("max", 1..=8),
];

const OPERATORS: [&str; 17] = [
    operators::CONDITIONAL,
    operators::LOGICAL_AND,
    operators::LOGICAL_OR,
    operators::LOGICAL_NOT,
    operators::NOT_STRICTLY_FALSE,
    operators::SUBSTRACT,
    operators::ADD,
    operators::MULTIPLY,
    operators::DIVIDE,
    operators::MODULO,
    operators::EQUALS,
    operators::NOT_EQUALS,
    operators::GREATER_EQUALS,
    operators::LESS_EQUALS,
    operators::GREATER,
    operators::LESS,
    operators::IN,
];

/// A checked and rewritten expression.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) expression: IdedExpr,
    /// Regular expressions, bound as variables of the names that `pattern_name` gives.
    pub(super) patterns: Vec<Arc<Pattern>>,
}

/// A compiled regular expression as a value of the interpreter.
#[derive(Debug)]
pub(super) struct Pattern {
    regex: regex::Regex,
    /// Steps that 64 bytes of text take at most.
    pub(super) steps: u64,
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.regex.as_str() == other.regex.as_str()
    }
}

impl Eq for Pattern {}

impl Opaque for Pattern {
    fn runtime_type_name(&self) -> &'static str {
        "harborhook.expression.Pattern"
    }
}

/// Name of the variable that holds an expression's regular expression of this number.
pub(super) fn pattern_name(number: usize) -> String {
    format!("{PATTERN_PREFIX}{number}")
}

/// The number in such a name.
pub(super) fn pattern_number(name: &str) -> Option<usize> {
    name.strip_prefix(PATTERN_PREFIX)?.parse().ok()
}

/// Parses, checks and rewrites an expression.
pub(super) fn compile(text: &str, dialect: &'static Dialect) -> Result<Program, ExpressionError> {
    check_nesting(text, dialect)?;
    let expression = Parser::new().parse(text).map_err(|errors| {
        let first = errors.errors.first();
        let (line, column) = first.map_or((0, 0), |error| error.pos);
        let message = first.map_or("not CEL", |error| error.msg.as_str());
        ExpressionError::new(ExpressionErrorReason::Syntax, format!("line {line}, column {column}: {message}"))
    })?;
    let mut rewriter = Rewriter { dialect, nodes: 0, depth: 0, variables: Vec::new(), patterns: Vec::new() };
    let expression = rewriter.rewrite(expression)?;
    Ok(Program { expression, patterns: rewriter.patterns })
}

/// The functions of the interpreter and our own.
pub(super) fn functions() -> Context<'static> {
    let mut context = Context::default();
    context.add_function(FUNCTION_NEGATE, |value: Value| match value {
        Value::Int(number) => number.checked_neg().map(Value::Int).ok_or(ExecutionError::NoSuchOverload),
        Value::Float(number) => Ok(Value::Float(-number)),
        _ => Err(ExecutionError::NoSuchOverload),
    });
    context.add_function(FUNCTION_MATCHES, |This(text): This<Arc<String>>, pattern: Arc<dyn Opaque>| {
        let pattern = pattern.downcast_ref::<Pattern>().ok_or(ExecutionError::NoSuchOverload)?;
        Ok(Value::Bool(pattern.regex.is_match(&text)))
    });
    context.add_function(FUNCTION_ORDERED, |range: Value| match range {
        Value::Map(map) => {
            let mut keys: Vec<&Key> = map.map.keys().collect();
            keys.sort_unstable();
            Ok(Value::List(Arc::new(keys.into_iter().map(key_value).collect())))
        }
        other => Ok(other),
    });
    context
}

fn key_value(key: &Key) -> Value {
    match key {
        Key::Int(number) => Value::Int(*number),
        Key::Uint(number) => Value::UInt(*number),
        Key::Bool(truth) => Value::Bool(*truth),
        Key::String(text) => Value::String(Arc::clone(text)),
    }
}

/// JSON as the interpreter's value: whole numbers are integers, all others doubles.
pub(super) fn value(json: &serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(truth) => Value::Bool(*truth),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Value::Int(number),
            (None, Some(number)) => Value::UInt(number),
            (None, None) => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        serde_json::Value::String(text) => Value::String(Arc::new(text.clone())),
        serde_json::Value::Array(elements) => Value::List(Arc::new(elements.iter().map(value).collect())),
        serde_json::Value::Object(members) => {
            let members: std::collections::HashMap<Key, Value> =
                members.iter().map(|(key, member)| (Key::String(Arc::new(key.clone())), value(member))).collect();
            Value::Map(members.into())
        }
    }
}

/// What went wrong, without the values with which it did.
pub(super) fn evaluation_error(error: &ExecutionError) -> ExpressionError {
    let message = match error {
        ExecutionError::NoSuchKey(_) => "a field is missing in this event: ask with `has(…)` before using it",
        ExecutionError::IndexOutOfBounds(_) => "an index is out of bounds: ask with `size(…)` before using it",
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => "a division by zero",
        ExecutionError::Overflow(..) => "a number is too large",
        _ => "an operator or function does not fit the type of its operand in this event",
    };
    ExpressionError::new(ExpressionErrorReason::Evaluation, message)
}

/// Bounds what makes the parser recurse, before it does.
fn check_nesting(text: &str, dialect: &Dialect) -> Result<(), ExpressionError> {
    let (mut depth, mut deepest, mut run) = (0_usize, 0_usize, 0_usize);
    let mut conditionals = 0;
    for character in text.chars() {
        match character {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            '?' => conditionals += 1,
            _ => {}
        }
        run = match character {
            '!' | '-' => run + 1,
            _ if character.is_whitespace() => run,
            _ => 0,
        };
        deepest = deepest.max(depth).max(run);
    }
    if deepest.max(conditionals) > EXPRESSION_DEPTH_MAX {
        let message = format!(
            "a {} has at most {EXPRESSION_DEPTH_MAX} levels of brackets, unary operators and conditionals",
            dialect.noun
        );
        return Err(ExpressionError::new(ExpressionErrorReason::TooLarge, message));
    }
    Ok(())
}

struct Rewriter {
    dialect: &'static Dialect,
    nodes: usize,
    /// Of the node at hand.
    depth: usize,
    variables: Vec<String>,
    patterns: Vec<Arc<Pattern>>,
}

impl Rewriter {
    fn rewrite(&mut self, expression: IdedExpr) -> Result<IdedExpr, ExpressionError> {
        let Dialect { noun, nodes_max, .. } = self.dialect;
        self.nodes += 1;
        self.depth += 1;
        if self.nodes > *nodes_max {
            let message = format!("a {noun} has at most {nodes_max} parts");
            return Err(ExpressionError::new(ExpressionErrorReason::TooLarge, message));
        }
        if self.depth > EXPRESSION_TREE_DEPTH_MAX {
            let message = format!("a {noun} has at most {EXPRESSION_TREE_DEPTH_MAX} operators in a row");
            return Err(ExpressionError::new(ExpressionErrorReason::TooLarge, message));
        }
        let rewritten = self.rewrite_node(expression)?;
        self.depth -= 1;
        Ok(rewritten)
    }

    fn rewrite_node(&mut self, IdedExpr { id, expr }: IdedExpr) -> Result<IdedExpr, ExpressionError> {
        let expr = match expr {
            Expr::Literal(LiteralValue::Bytes(_)) => return Err(self.unsupported("bytes: JSON has none")),
            Expr::Literal(literal) => Expr::Literal(literal),
            Expr::Ident(name) => {
                if name != EVENT && !self.variables.contains(&name) {
                    return Err(self.unsupported(&format!("the variable `{name}`: there is only `{EVENT}`")));
                }
                Expr::Ident(name)
            }
            Expr::Select(mut select) => {
                let operand = self.rewrite(*select.operand)?;
                if select.test {
                    select.operand = Box::new(operand);
                    Expr::Select(select)
                } else {
                    index(operand, select.field)
                }
            }
            Expr::Call(call) => self.rewrite_call(call)?,
            Expr::List(mut list) => {
                list.elements = self.rewrite_all(list.elements)?;
                Expr::List(list)
            }
            Expr::Map(mut map) => {
                for entry in &mut map.entries {
                    let EntryExpr::MapEntry(entry) = &mut entry.expr else { return Err(self.unsupported("a message")) };
                    entry.key = self.rewrite(std::mem::take(&mut entry.key))?;
                    entry.value = self.rewrite(std::mem::take(&mut entry.value))?;
                }
                Expr::Map(map)
            }
            Expr::Comprehension(comprehension) => self.rewrite_comprehension(*comprehension)?,
            Expr::Struct(_) => return Err(self.unsupported("a message: use `{\"key\": value}`")),
            Expr::Unspecified => return Err(ExpressionError::new(ExpressionErrorReason::Syntax, "not CEL")),
        };
        Ok(IdedExpr { id, expr })
    }

    fn rewrite_all(&mut self, expressions: Vec<IdedExpr>) -> Result<Vec<IdedExpr>, ExpressionError> {
        expressions.into_iter().map(|expression| self.rewrite(expression)).collect()
    }

    fn rewrite_comprehension(
        &mut self,
        mut comprehension: cel::common::ast::ComprehensionExpr,
    ) -> Result<Expr, ExpressionError> {
        if comprehension.iter_var == EVENT {
            return Err(self.unsupported(&format!("a variable named `{EVENT}` in a macro: choose another name")));
        }
        let range = self.rewrite(comprehension.iter_range)?;
        let gathers = matches!(comprehension.accu_init.expr, Expr::List(_));
        comprehension.iter_range =
            if gathers { IdedExpr { id: range.id, expr: function(FUNCTION_ORDERED, vec![range]) } } else { range };
        comprehension.accu_init = self.rewrite(comprehension.accu_init)?;
        let outer = self.variables.len();
        self.variables.extend([comprehension.iter_var.clone(), comprehension.accu_var.clone()]);
        comprehension.loop_cond = self.rewrite(comprehension.loop_cond)?;
        comprehension.loop_step = self.rewrite(comprehension.loop_step)?;
        comprehension.result = self.rewrite(comprehension.result)?;
        self.variables.truncate(outer);
        Ok(Expr::Comprehension(Box::new(comprehension)))
    }

    fn rewrite_call(&mut self, call: CallExpr) -> Result<Expr, ExpressionError> {
        let mut arguments = Vec::with_capacity(call.args.len() + 1);
        arguments.extend(call.target.map(|target| *target));
        arguments.extend(call.args);
        let name = call.func_name.as_str();
        if name == "matches" && arguments.len() == 2 {
            let pattern = arguments.pop().unwrap_or_default();
            let text = self.rewrite(arguments.pop().unwrap_or_default())?;
            let pattern = IdedExpr { id: pattern.id, expr: self.pattern(&pattern.expr)? };
            return Ok(function(FUNCTION_MATCHES, vec![text, pattern]));
        }
        let arguments = self.rewrite_all(arguments)?;
        if name == operators::NEGATE {
            return Ok(function(FUNCTION_NEGATE, arguments));
        }
        if name == operators::INDEX || OPERATORS.contains(&name) {
            return Ok(function(name, arguments));
        }
        match FUNCTIONS.iter().find(|(function, _)| *function == name) {
            Some((_, counts)) if counts.contains(&arguments.len()) => Ok(function(name, arguments)),
            Some(_) => Err(self.unsupported(&format!("`{name}` with {} arguments", arguments.len()))),
            None => {
                let known: Vec<&str> = FUNCTIONS.iter().map(|(name, _)| *name).collect();
                Err(self.unsupported(&format!("the function `{name}`: there are {}, and the macros", known.join(", "))))
            }
        }
    }

    fn unsupported(&self, what: &str) -> ExpressionError {
        let message = format!("a {} cannot use {what}", self.dialect.noun);
        ExpressionError::new(ExpressionErrorReason::Unsupported, message)
    }

    fn pattern(&mut self, expression: &Expr) -> Result<Expr, ExpressionError> {
        let Expr::Literal(LiteralValue::String(text)) = expression else {
            return Err(self.unsupported("a regular expression that is not a literal"));
        };
        let regex =
            regex::RegexBuilder::new(text.inner()).size_limit(EXPRESSION_REGEX_BYTES_MAX).build().map_err(|_| {
                let message = "the regular expression of `matches` is malformed or too large (RE2 syntax)";
                ExpressionError::new(ExpressionErrorReason::Syntax, message)
            })?;
        let name = pattern_name(self.patterns.len());
        self.patterns.push(Arc::new(Pattern { regex, steps: pattern_steps(text.inner()) }));
        Ok(Expr::Ident(name))
    }
}

/// What 64 bytes of text cost at most: in the order of the pattern's length, with every counted repetition written out.
fn pattern_steps(text: &str) -> u64 {
    let repetitions = text.split('{').skip(1).map(|rest| {
        let counts = rest.split('}').next().unwrap_or_default().split(',');
        counts.filter_map(|count| count.trim().parse::<u64>().ok()).max().unwrap_or(1).max(1)
    });
    let length = repetitions.fold(text.len() as u64 + 1, u64::saturating_mul);
    length.saturating_mul(STEPS_PER_PATTERN_BYTE)
}

fn function(name: &str, args: Vec<IdedExpr>) -> Expr {
    Expr::Call(CallExpr { func_name: name.to_owned(), target: None, args })
}

fn index(operand: IdedExpr, field: String) -> Expr {
    let field = IdedExpr { id: operand.id, expr: Expr::Literal(LiteralValue::String(field.into())) };
    function(operators::INDEX, vec![operand, field])
}
