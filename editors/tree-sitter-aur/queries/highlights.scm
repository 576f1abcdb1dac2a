(comment) @comment
(documentation) @comment.documentation
(text) @string
(number) @number
(unit) @type
(mark "@" @attribute name: (identifier) @attribute)

["import" "extends" "let" "param" "in" "expect" "from" "every" "weight" "max_epochs" "with" "confidence"] @keyword
(block kind: (identifier) @keyword name: (identifier) @type.definition)
(gate name: (identifier) @type.definition)
(let name: (identifier) @constant)
(param name: (identifier) @constant)
(field path: (path (identifier) @property))
(component name: (identifier) @property)
(call name: (identifier) @function)
(function name: (identifier) @function)
(argument name: (identifier) @variable.parameter)
((word) @constant.builtin (#any-of? @constant.builtin "true" "false" "unknown" "none"))
(word) @variable
(metric) @variable
(names (identifier) @type)

["=" ".." "+" "-" "*"] @operator
(relation) @operator
["{" "}" "[" "]" "(" ")"] @punctuation.bracket
["," "."] @punctuation.delimiter
