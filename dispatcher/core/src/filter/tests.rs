use proptest::prelude::*;

use super::*;
use crate::expression::fixtures::event;
use crate::limits::{EXPRESSION_DEPTH_MAX, FILTER_NODES_MAX};

fn answer(filter: &str, data: &str) -> Result<bool, ExpressionErrorReason> {
    let filter = Filter::compile(filter).map_err(|error| error.reason)?;
    filter.matches(&EventInput::new(&event(data.to_owned())), &mut plenty()).map_err(|error| error.reason)
}

/// A budget that no filter on its own can exceed.
fn plenty() -> EvaluationBudget {
    EvaluationBudget::new(u64::MAX, u64::MAX)
}

const ORDER: &str = r#"{"total": 120.5, "count": 3, "big": 18446744073709551615, "least": -9223372036854775808,
    "state": "paid", "tags": ["new", "eu"], "empty": [], "none": null, "yes": true,
    "items": [{"price": 5, "name": "nut"}, {"price": 40, "name": "bolt"}], "a.b": {"c-d": 1}}"#;

#[test]
fn filters_see_the_event_and_its_data() {
    for filter in [
        "event.type == 'order.created'",
        "event.type.startsWith('order.') && event.recipient == 'acme'",
        "event.subject == 'order/7' && event.time == '2023-11-14T22:13:20.123Z'",
        "event.source.startsWith('/tenants/') && event.id.size() == 36",
        "event.data.total > 100 && event.data.total < 120.6 && event.data.count == 3",
        "event.data.big > 5 && event.data.big == 18446744073709551615u",
        "event.data.state in ['paid', 'shipped'] && 'eu' in event.data.tags",
        "event.data.items.exists(item, item.price > 30 && item.name.matches('^b.*t$'))",
        "event.data.items.all(item, item.price >= 5) && event.data.items[1].price == 40",
        "event.data.items.exists_one(item, item.price == 5)",
        "size(event.data.items.filter(item, item.price > 5)) == 1",
        "event.data.items.map(item, item.price) == [5, 40]",
        "event.data['a.b']['c-d'] == 1 && event['type'] != ''",
        "has(event.data.state) && !has(event.data.missing) && !has(event.dataschema)",
        "-event.data.count == -3 && -event.data.total < 0.0",
        "event.data.yes ? true : false",
        "event.data.none == null && event.data.empty == [] && event.data.state != null",
        "string(event.data.count) + '!' == '3!' && int('7') == 7 && max(1, 2) == 2",
        "event.data.items.all(item, ['a', 'b'].exists(x, x + item.name != ''))",
        "event.data.missing == 1 || event.data.count == 3",
    ] {
        assert_eq!(answer(filter, ORDER), Ok(true), "{filter}");
    }
    for filter in ["false", "event.data.total > 1000", "event.data.state == 'Paid'", "has(event.data.state.x)"] {
        assert_eq!(answer(filter, ORDER), Ok(false), "{filter}");
    }
}

#[test]
fn a_filter_that_cannot_answer_says_why() {
    for (filter, reason) in [
        ("event.data.missing == 1", ExpressionErrorReason::Evaluation),
        ("event.data.state.length > 1", ExpressionErrorReason::Evaluation),
        ("event.data.items[7].price > 1", ExpressionErrorReason::Evaluation),
        ("event.data.items[-1].price > 1", ExpressionErrorReason::Evaluation),
        ("event.data.count / 0 == 1", ExpressionErrorReason::Evaluation),
        ("-event.data.least > 0", ExpressionErrorReason::Evaluation),
        ("event.data.least - 1 > 0", ExpressionErrorReason::Evaluation),
        ("event.data.state > 1", ExpressionErrorReason::Evaluation),
        ("event.data.count", ExpressionErrorReason::NotBoolean),
        ("'true'", ExpressionErrorReason::NotBoolean),
    ] {
        assert_eq!(answer(filter, ORDER), Err(reason), "{filter}");
    }
    assert_eq!(answer("true", "{\"a\":"), Err(ExpressionErrorReason::DataUnreadable));
    assert_eq!(answer("true", "{\"a\":1e999}"), Err(ExpressionErrorReason::DataUnreadable));
}

#[test]
fn what_is_no_filter_is_refused_when_it_is_compiled() {
    let deep = format!("{}true{}", "(".repeat(EXPRESSION_DEPTH_MAX + 1), ")".repeat(EXPRESSION_DEPTH_MAX + 1));
    let negations = format!("{}true", "!".repeat(2 * EXPRESSION_DEPTH_MAX));
    let many = vec!["true"; FILTER_NODES_MAX].join("&&");
    let long = format!("'{}' == ''", "x".repeat(FILTER_BYTES_MAX));
    for (filter, reason) in [
        ("", ExpressionErrorReason::Syntax),
        ("event.", ExpressionErrorReason::Syntax),
        ("event.type = 'x'", ExpressionErrorReason::Syntax),
        ("event.type.matches('(')", ExpressionErrorReason::Syntax),
        ("event.type.matches('((a{100}){100}){100}')", ExpressionErrorReason::Syntax),
        ("has(event)", ExpressionErrorReason::Syntax),
        ("data.x == 1", ExpressionErrorReason::Unsupported),
        ("item == 1 || [1].exists(item, true)", ExpressionErrorReason::Unsupported),
        ("[1].exists(event, true)", ExpressionErrorReason::Unsupported),
        ("event.type.matches(event.data)", ExpressionErrorReason::Unsupported),
        ("b'x' == b'x'", ExpressionErrorReason::Unsupported),
        ("bytes('x') == bytes('x')", ExpressionErrorReason::Unsupported),
        ("Message{field: 1} == 1", ExpressionErrorReason::Unsupported),
        ("now() > 1", ExpressionErrorReason::Unsupported),
        ("size() == 1", ExpressionErrorReason::Unsupported),
        ("optional.none() == 1", ExpressionErrorReason::Unsupported),
        (&deep, ExpressionErrorReason::TooLarge),
        (&negations, ExpressionErrorReason::TooLarge),
        (&many, ExpressionErrorReason::TooLarge),
        (&long, ExpressionErrorReason::TooLarge),
    ] {
        let error = Filter::compile(filter).map(|_| ()).unwrap_err();
        assert_eq!(error.reason, reason, "{filter}: {error}");
        assert!(!error.message.is_empty());
    }
}

#[test]
fn cost_is_bounded_before_evaluation() {
    let numbers = format!("[{}]", vec!["7"; 20_000].join(","));
    let wide = format!("{{\"l\": {numbers}, \"s\": \"{}\"}}", "x".repeat(500_000));
    assert_eq!(
        answer("event.data.s.matches('x+y') || event.type.matches('^[a-z]{1,20}[.]\\\\w{7}$')", &wide),
        Ok(true)
    );
    // One pass over a long list is fine, and so is looking at one field beside it.
    assert_eq!(answer("event.data.l.exists(x, x == 8)", &wide), Ok(false));
    assert_eq!(answer("event.data.s.size() > 5 && event.data.l[3] == 7", &wide), Ok(true));
    for filter in [
        "event.data.l.exists(x, event.data.l.exists(y, x != y))",
        "size(event.data.l.map(x, x + 1)) > 0",
        "event.data.l.exists(x, event.data.s.contains('y'))",
        "event.data.s.matches('x[xz]{200}y')",
        "event.data.s.matches('((x{9}){9}){9}y')",
        "event.data.l.exists(x, [event.data.s, event.data.s] == [])",
        "[event.data].map(x, [x, x]).map(x, [x, x]).map(x, [x, x]).map(x, [x, x]).map(x, [x, x]) == []",
        "[event.data.l].map(x, [x, x, x, x, x, x, x, x, x, x]).exists(x, x.exists(y, y.exists(z, z == 1)))",
    ] {
        assert_eq!(answer(filter, &wide), Err(ExpressionErrorReason::CostExceeded), "{filter}");
    }
    // The same filters on small events cost next to nothing.
    let small = r#"{"l": [1, 2], "s": "x"}"#;
    assert_eq!(answer("event.data.l.exists(x, event.data.l.exists(y, x != y))", small), Ok(true));
}

#[test]
fn filters_share_the_steps_of_their_event_and_request() {
    let list = event(format!("[{}]", vec!["7"; 1_000].join(",")));
    let filter = Filter::compile("event.data.exists(x, x == 8)").unwrap();
    let mut budget = plenty();
    let input = EventInput::read(&list, &mut budget).unwrap();
    filter.matches(&input, &mut budget).unwrap();
    let steps = u64::MAX - budget.steps_left();

    let count = |budget: &mut EvaluationBudget| {
        budget.begin_event();
        let input = EventInput::read(&list, budget)?;
        (0..5).map(|_| filter.matches(&input, budget)).collect::<Result<Vec<bool>, ExpressionError>>()
    };
    let reason = |answer: Result<Vec<bool>, ExpressionError>| answer.map(|_| ()).map_err(|error| error.reason);
    for (event_steps, request_steps, first, second) in [
        (10 * steps, 10 * steps, Ok(()), Ok(())),
        (2 * steps, 10 * steps, Err(ExpressionErrorReason::CostExceeded), Err(ExpressionErrorReason::CostExceeded)),
        (10 * steps, 6 * steps, Ok(()), Err(ExpressionErrorReason::CostExceeded)),
        (0, 0, Err(ExpressionErrorReason::CostExceeded), Err(ExpressionErrorReason::CostExceeded)),
    ] {
        let mut budget = EvaluationBudget::new(event_steps, request_steps);
        assert_eq!(reason(count(&mut budget)), first, "first event, {event_steps} of {request_steps}");
        assert_eq!(budget.is_exceeded(), first.is_err());
        assert_eq!(reason(count(&mut budget)), second, "second event, {event_steps} of {request_steps}");
        assert_eq!(budget.is_exceeded(), second.is_err());
    }
}

#[test]
fn the_largest_filters_fit_the_stack_of_a_thread() {
    use ExpressionErrorReason::{Evaluation, Syntax, TooLarge, Unsupported};
    for (text, expected) in [
        (format!("event.data{}", ".a".repeat(100)), Err(Evaluation)),
        (format!("event.data{}", "[0]".repeat(100)), Err(Evaluation)),
        (format!("{}1 == 121", "1 + ".repeat(120)), Ok(true)),
        (vec!["event.type == 'x'"; 40].join(" || "), Ok(false)),
        (format!("{}true{}", "(".repeat(EXPRESSION_DEPTH_MAX), ")".repeat(EXPRESSION_DEPTH_MAX)), Ok(true)),
        ("event.".repeat(FILTER_BYTES_MAX / 6 - 1) + "a", Err(TooLarge)),
        ("a.".repeat(FILTER_BYTES_MAX / 2 - 1) + "a", Err(TooLarge)),
        ("1+".repeat(FILTER_BYTES_MAX / 2 - 1) + "1", Err(TooLarge)),
        ("1<".repeat(FILTER_BYTES_MAX / 2 - 1) + "1", Err(TooLarge)),
        ("a&&".repeat(FILTER_BYTES_MAX / 3 - 1) + "a", Err(Unsupported)),
        ("a[".repeat(EXPRESSION_DEPTH_MAX) + "a", Err(Syntax)),
        ("!".repeat(FILTER_BYTES_MAX), Err(TooLarge)),
    ] {
        assert_eq!(answer(&text, "{}"), expected, "{text}");
    }
}

/// Expressions of any shape, most of them wrong in some way.
fn expression() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec![
        "event",
        "event.data",
        "event.data.a",
        "event.data.l",
        "event.type",
        "x",
        "1",
        "-1",
        "0",
        "2u",
        "1.5",
        "'a'",
        "''",
        "true",
        "false",
        "null",
        "[]",
        "{}",
        "9223372036854775807",
        "-9223372036854775808",
        "b''",
        "event.data.m",
    ])
    .prop_map(str::to_owned);
    leaf.prop_recursive(4, 24, 3, |inner| {
        let binary = prop::sample::select(vec!["+", "-", "*", "/", "%", "==", "!=", "<", ">=", "&&", "||", "in"]);
        let method = prop::sample::select(vec!["contains", "startsWith", "endsWith", "matches", "min", "max", "size"]);
        let macro_name = prop::sample::select(vec!["exists", "all", "exists_one", "map", "filter"]);
        prop_oneof![
            (inner.clone(), binary, inner.clone())
                .prop_map(|(left, operator, right)| format!("({left} {operator} {right})")),
            (inner.clone(), method, inner.clone()).prop_map(|(left, name, right)| format!("{left}.{name}({right})")),
            (inner.clone(), macro_name, inner.clone())
                .prop_map(|(left, name, right)| format!("{left}.{name}(x, {right})")),
            (inner.clone(), inner.clone()).prop_map(|(left, right)| format!("{left}[{right}]")),
            (inner.clone(), inner.clone()).prop_map(|(left, right)| format!("{{{left}: {right}}}")),
            inner.clone().prop_map(|one| format!("[{one}, {one}]")),
            inner.clone().prop_map(|one| format!("-({one})")),
            inner.clone().prop_map(|one| format!("!{one}")),
            inner.clone().prop_map(|one| format!("has({one}.a)")),
            inner.clone().prop_map(|one| format!("string({one})")),
            inner.clone().prop_map(|one| format!("int({one})")),
            (inner.clone(), inner.clone(), inner).prop_map(|(one, two, three)| format!("({one} ? {two} : {three})")),
        ]
    })
}

fn data() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "{}",
        "null",
        "[]",
        "7",
        "\"text\"",
        r#"{"a": 1, "l": [1, 2, 3], "m": {"a": "b"}}"#,
        r#"{"a": -9223372036854775808, "l": [[], {}, null], "m": -9223372036854775808}"#,
        r#"{"a": "x", "l": ["a", "", 1e308], "m": [18446744073709551615, 0]}"#,
        "{",
        "\"\\ud800\"",
        "1e999",
    ])
    .prop_map(str::to_owned)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_expression_panics_on_any_event(filter in expression(), data in data()) {
        let answer = Filter::compile(&filter).and_then(|filter| filter.matches(&EventInput::new(&event(data)), &mut plenty()));
        prop_assert!(answer.err().is_none_or(|error| !error.message.is_empty()));
    }

    #[test]
    fn no_text_panics_when_it_is_compiled(text in "\\PC{0,60}|[a-z.()\\[\\]{}'\"!&|+*?:,0-9 =<>\\\\-]{0,60}|(event|\\.|data|\\(|\\)|has|\\?|:|'|\\{|\\}){0,20}") {
        if let Ok(filter) = Filter::compile(&text) {
            filter.matches(&EventInput::new(&event("{}")), &mut plenty()).ok();
        }
    }
}
