/// The .aur language for tree-sitter. `tree-sitter generate` generates `src/parser.c` from it; `src/scanner.c` recognizes units.

const list = (open, item, close) => seq(open, optional(seq(item, repeat(seq(",", item)), optional(","))), close);

module.exports = grammar({
  name: "aur",

  word: ($) => $.identifier,
  extras: ($) => [/[\s\uFEFF]/, $.comment, $.documentation],
  // A word after a number, on the same line, that does not start the next field.
  externals: ($) => [$.unit],

  rules: {
    file: ($) => repeat(choice($.import, $.extends, $.let, $.param, $.gate, $.block)),

    import: ($) => seq("import", field("path", $.text), optional(field("names", $.names))),
    names: ($) => list("{", $.identifier, "}"),
    extends: ($) => seq("extends", field("path", $.text), optional($.body)),
    let: ($) => seq("let", field("name", $.identifier), "=", $._marked),
    param: ($) =>
      seq("param", field("name", $.identifier), "=", $._marked, optional(seq("in", field("allowed", choice($.list, $.range))))),
    range: ($) => seq($.quantity, "..", $.quantity),

    block: ($) => seq(field("kind", $.identifier), field("name", $.identifier), field("body", $.body)),
    body: ($) => seq("{", repeat(choice($.field, $.component, $.block)), "}"),
    field: ($) => seq(field("path", $.path), "=", $._marked),
    path: ($) => seq($.identifier, repeat(seq(".", $.identifier))),
    component: ($) => seq(field("name", $.identifier), choice(seq("from", $._marked, repeat($.setting)), repeat1($.setting))),
    setting: ($) => seq(choice("weight", "max_epochs"), $._marked),

    gate: ($) =>
      seq("expect", field("name", $.identifier), "{", $._expression, $.relation, $._expression, optional($.confidence), repeat($.mark), "}"),
    confidence: ($) => seq("with", $.quantity, "confidence"),
    relation: () => choice("<=", ">=", "<", ">"),
    _expression: ($) => choice($.quantity, $.function, $.metric, $.group, $.sum, $.product),
    function: ($) => seq(field("name", $.identifier), list("(", $._expression, ")")),
    group: ($) => seq("(", $._expression, ")"),
    sum: ($) => prec.left(1, seq($._expression, choice("+", "-"), $._expression)),
    product: ($) => prec.left(2, seq($._expression, "*", $._expression)),
    metric: ($) => seq($._metric_name, repeat(seq(".", $._metric_name))),
    _metric_name: ($) => choice($.identifier, $.metric_name),
    // `pass@1` is one name.
    metric_name: () => /[A-Za-z_]\w*@\d+/,

    _marked: ($) => seq(field("value", $._value), repeat($.mark)),
    mark: ($) => seq("@", field("name", $.identifier), "(", $.text, ")"),
    _value: ($) => choice($.every, $.call, $.word, $.quantity, $.text, $.list),
    every: ($) => seq("every", $.quantity),
    word: ($) => $.identifier,
    list: ($) => list("[", $._marked, "]"),
    call: ($) => seq(field("name", $.identifier), $.arguments),
    arguments: ($) => list("(", $.argument, ")"),
    argument: ($) => seq(optional(seq(field("name", $.identifier), "=")), $._marked),

    quantity: ($) => prec.right(seq($.number, optional($.unit))),
    number: () => /-?\d[\d_]*(\.[\d_]+)?([eE][+-]?\d+)?[KMBT]?%?/,
    text: () => token(seq('"', repeat(choice(/[^"\\\n]/, /\\[^\n]/)), '"')),
    identifier: () => /[A-Za-z_]\w*/,
    comment: () => token(seq("//", /[^\n]*/)),
    documentation: () => token(prec(1, seq("///", optional(/[^\/\n][^\n]*/)))),
  },
});
