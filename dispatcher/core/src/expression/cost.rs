//! What evaluating an expression on one event can cost at most, computed from the two without evaluating.
//!
//! The unit is about what copying one small value takes. A value's size is the number of values in it, plus one for
//! every 64 bytes of text. Paths that the expression spells out (`event.data.items`) are followed, so their sizes are
//! exact; whatever is computed has an upper bound.

use cel::IdedExpr;
use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue, operators};
use serde_json::Value;

use super::program::{FUNCTION_MATCHES, FUNCTION_NEGATE, FUNCTION_ORDERED, Program, pattern_number};

/// Copies that the interpreter makes of a function's arguments and result.
const COPIES_OF_A_CALL: u64 = 4;
/// Copies of a list under construction in each step of `map` and `filter`.
const COPIES_OF_A_STEP: u64 = 3;
/// Values whose size is taken in the time in which one is copied.
const VALUES_LOOKED_AT_PER_UNIT: u64 = 8;
/// Bytes of text that count as one value.
const TEXT_BYTES_PER_UNIT: usize = 64;

/// What is known of an expression's cost on an event.
pub(super) struct Estimate {
    /// The cost, or `None` as soon as it is above what was allowed.
    pub(super) steps: Option<u64>,
    /// What finding out has cost itself.
    pub(super) looked: u64,
}

/// The cost, if it is at most `steps_max`, with so many copies of the result.
pub(super) fn of(program: &Program, event: &Value, steps_max: u64, result_copies: u64) -> Estimate {
    let mut meter = Meter { spent: 0, looked: 0, steps_max, times: 1, event, program, variables: Vec::new() };
    let answered = meter.walk(&program.expression).and_then(|result| match result_copies {
        0 => Some(()),
        copies => meter.size(result).and_then(|size| meter.charge(size.saturating_mul(copies))),
    });
    Estimate { steps: answered.map(|()| meter.spent), looked: meter.looked }
}

/// What is known of a value before evaluation.
#[derive(Clone, Copy)]
enum Shape<'a> {
    /// It is this part of the event.
    Known(&'a Value),
    /// Its size is at most this.
    Bound(u64),
}

struct Meter<'a> {
    spent: u64,
    /// Steps of the walk itself.
    looked: u64,
    steps_max: u64,
    /// How often what is being looked at is evaluated.
    times: u64,
    event: &'a Value,
    program: &'a Program,
    variables: Vec<(&'a str, Shape<'a>)>,
}

impl<'a> Meter<'a> {
    fn charge(&mut self, units: u64) -> Option<()> {
        self.spent = self.spent.saturating_add(units.saturating_mul(self.times));
        (self.spent <= self.steps_max).then_some(())
    }

    fn walk(&mut self, expression: &'a IdedExpr) -> Option<Shape<'a>> {
        self.looked += 1;
        self.charge(1)?;
        match &expression.expr {
            Expr::Literal(LiteralValue::String(text)) => Some(Shape::Bound(1 + text_size(text))),
            Expr::Literal(_) => Some(Shape::Bound(1)),
            Expr::Ident(name) => {
                let variable = self.variables.iter().rev().find(|(variable, _)| variable == name);
                Some(variable.map_or(Shape::Known(self.event), |(_, shape)| *shape))
            }
            Expr::Call(call) => self.walk_call(call),
            Expr::Select(select) => self.walk(&select.operand).map(|_| Shape::Bound(1)),
            Expr::List(list) => self.walk_parts(list.elements.iter()),
            Expr::Map(map) => self.walk_parts(map.entries.iter().flat_map(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => [Some(&entry.key), Some(&entry.value)].into_iter().flatten(),
                EntryExpr::StructField(field) => [Some(&field.value), None].into_iter().flatten(),
            })),
            Expr::Comprehension(comprehension) => self.walk_comprehension(comprehension),
            Expr::Struct(_) | Expr::Unspecified => None,
        }
    }

    /// A list or map made of the values of `parts`, each copied into it.
    fn walk_parts(&mut self, parts: impl Iterator<Item = &'a IdedExpr>) -> Option<Shape<'a>> {
        let mut size: u64 = 1;
        for part in parts {
            let shape = self.walk(part)?;
            size = size.saturating_add(self.size(shape)?);
        }
        self.charge(size)?;
        Some(Shape::Bound(size))
    }

    fn walk_call(&mut self, call: &'a CallExpr) -> Option<Shape<'a>> {
        if call.func_name == operators::INDEX {
            return self.walk_index(call);
        }
        if call.func_name == FUNCTION_MATCHES {
            return self.walk_matches(call);
        }
        if call.func_name == FUNCTION_ORDERED {
            let [range] = call.args.as_slice() else { return None };
            let shape = self.walk(range)?;
            let size = self.size(shape)?;
            return self.charge(size.saturating_mul(COPIES_OF_A_CALL)).map(|()| shape);
        }
        let (mut sum, mut largest) = (0_u64, 0);
        for part in call.target.iter().map(AsRef::as_ref).chain(&call.args) {
            let shape = self.walk(part)?;
            // The logical operators look at nothing but a boolean.
            if !matches!(
                call.func_name.as_str(),
                operators::LOGICAL_AND | operators::LOGICAL_OR | operators::LOGICAL_NOT | operators::NOT_STRICTLY_FALSE
            ) {
                let size = self.size(shape)?;
                sum = sum.saturating_add(size);
                largest = largest.max(size);
            }
        }
        match call.func_name.as_str() {
            operators::LOGICAL_AND | operators::LOGICAL_OR | operators::LOGICAL_NOT | operators::NOT_STRICTLY_FALSE => {
                Some(Shape::Bound(1))
            }
            // The result is one of the operands, which may be copied.
            operators::CONDITIONAL => self.charge(largest).map(|()| Shape::Bound(largest)),
            operators::ADD => self.charge(sum).map(|()| Shape::Bound(sum)),
            name if name.starts_with('_') || name == operators::IN => self.charge(sum).map(|()| Shape::Bound(1)),
            FUNCTION_NEGATE => self.charge(sum.saturating_mul(COPIES_OF_A_CALL)).map(|()| Shape::Bound(1)),
            // The longest number as text is some 330 bytes.
            _ => self.charge(sum.saturating_mul(COPIES_OF_A_CALL)).map(|()| Shape::Bound(sum.saturating_add(6))),
        }
    }

    fn walk_index(&mut self, call: &'a CallExpr) -> Option<Shape<'a>> {
        let [container, key] = call.args.as_slice() else { return None };
        let container = self.walk(container)?;
        self.walk(key)?;
        match (container, &key.expr) {
            (Shape::Known(value), Expr::Literal(LiteralValue::String(key))) => {
                Some(value.get(key.inner()).map_or(Shape::Bound(1), Shape::Known))
            }
            (Shape::Known(Value::Array(elements)), Expr::Literal(LiteralValue::Int(index))) => {
                let element = usize::try_from(*index.inner()).ok().and_then(|index| elements.get(index));
                Some(element.map_or(Shape::Bound(1), Shape::Known))
            }
            // What is computed, and not a part of the event, is taken apart to get at the element.
            (container, _) => {
                let size = self.size(container)?;
                self.charge(size)?;
                Some(Shape::Bound(size))
            }
        }
    }

    fn walk_matches(&mut self, call: &'a CallExpr) -> Option<Shape<'a>> {
        let [text, IdedExpr { expr: Expr::Ident(pattern), .. }] = call.args.as_slice() else { return None };
        let pattern = self.program.patterns.get(pattern_number(pattern)?)?;
        let text = self.walk(text)?;
        let size = self.size(text)?;
        self.charge(size.saturating_mul(COPIES_OF_A_CALL.saturating_add(pattern.steps)))?;
        Some(Shape::Bound(1))
    }

    fn walk_comprehension(&mut self, comprehension: &'a ComprehensionExpr) -> Option<Shape<'a>> {
        let range = self.walk(&comprehension.iter_range)?;
        let range_size = self.size(range)?;
        self.charge(range_size)?;
        let (steps, item) = match range {
            Shape::Known(Value::Array(elements)) => {
                let sizes: Option<Vec<u64>> = elements.iter().map(|element| self.size(Shape::Known(element))).collect();
                (elements.len() as u64, sizes?.into_iter().max().unwrap_or(0))
            }
            Shape::Known(Value::Object(members)) => {
                (members.len() as u64, members.keys().map(|key| 1 + text_size(key)).max().unwrap_or(0))
            }
            Shape::Known(_) => (0, 0),
            Shape::Bound(size) => (size, size),
        };
        self.walk(&comprehension.accu_init)?;
        let (outer_times, outer_variables) = (self.times, self.variables.len());
        self.times = self.times.saturating_mul(steps);
        self.variables.push((&comprehension.iter_var, Shape::Bound(item)));
        // One step adds this much to an empty accumulator.
        self.variables.push((&comprehension.accu_var, Shape::Bound(1)));
        self.walk(&comprehension.loop_cond)?;
        let step = self.walk(&comprehension.loop_step)?;
        let step_size = self.size(step)?;
        let is_list = matches!(comprehension.accu_init.expr, Expr::List(_));
        let accumulated = if is_list { steps.saturating_mul(step_size).saturating_add(1) } else { 1 };
        self.charge(accumulated.saturating_mul(COPIES_OF_A_STEP))?;
        self.times = outer_times;
        self.variables.truncate(outer_variables + 1);
        self.variables.push((&comprehension.accu_var, Shape::Bound(accumulated)));
        self.walk(&comprehension.result)?;
        self.variables.truncate(outer_variables);
        self.charge(accumulated)?;
        Some(Shape::Bound(accumulated))
    }

    /// The size of a value. Looking at a part of the event is work too, which is charged for, once.
    fn size(&mut self, shape: Shape<'a>) -> Option<u64> {
        match shape {
            Shape::Bound(size) => Some(size),
            Shape::Known(value) => {
                let size = weigh(value);
                self.looked = self.looked.saturating_add(size / VALUES_LOOKED_AT_PER_UNIT);
                self.spent = self.spent.saturating_add(size / VALUES_LOOKED_AT_PER_UNIT);
                (self.spent <= self.steps_max).then_some(size)
            }
        }
    }
}

fn weigh(value: &Value) -> u64 {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 1,
        Value::String(text) => 1 + text_size(text),
        Value::Array(elements) => 1 + elements.iter().map(weigh).sum::<u64>(),
        Value::Object(members) => 1 + members.iter().map(|(key, value)| 1 + text_size(key) + weigh(value)).sum::<u64>(),
    }
}

fn text_size(text: &str) -> u64 {
    (text.len() / TEXT_BYTES_PER_UNIT) as u64
}
