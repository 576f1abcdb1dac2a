// Finds units: a word after a number, on the same line, that does not start the next field. The same rule as `unit` in
// lang/src/parse/grammar.pest.

#include <stdbool.h>
#include <string.h>

#include "tree_sitter/parser.h"

enum { UNIT };
enum { LONGEST = 16 };

static bool is_letter(int32_t c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }

static bool is_name(int32_t c) { return is_letter(c) || (c >= '0' && c <= '9'); }

static bool is_inline(int32_t c) { return c == ' ' || c == '\t'; }

// Reads a word into `word`, cut off at its size.
static void read_word(TSLexer *lexer, char word[LONGEST]) {
  size_t length = 0;
  while (is_name(lexer->lookahead)) {
    if (length + 1 < LONGEST) word[length++] = (char)lexer->lookahead;
    lexer->advance(lexer, false);
  }
  word[length] = 0;
}

static void skip_inline(TSLexer *lexer, bool before) {
  while (is_inline(lexer->lookahead)) lexer->advance(lexer, before);
}

void *tree_sitter_aur_external_scanner_create(void) { return NULL; }

void tree_sitter_aur_external_scanner_destroy(void *payload) { (void)payload; }

unsigned tree_sitter_aur_external_scanner_serialize(void *payload, char *buffer) {
  (void)payload;
  (void)buffer;
  return 0;
}

void tree_sitter_aur_external_scanner_deserialize(void *payload, const char *buffer, unsigned length) {
  (void)payload;
  (void)buffer;
  (void)length;
}

bool tree_sitter_aur_external_scanner_scan(void *payload, TSLexer *lexer, const bool *valid) {
  (void)payload;
  if (!valid[UNIT]) return false;
  skip_inline(lexer, true);
  if (!is_letter(lexer->lookahead)) return false;
  char word[LONGEST];
  read_word(lexer, word);
  lexer->mark_end(lexer);
  static const char *const others[] = {"weight", "max_epochs", "every", "in", "with", "confidence"};
  for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
    if (strcmp(word, others[i]) == 0) return false;
  }
  skip_inline(lexer, false);
  switch (lexer->lookahead) {
    case '=':
    case '(':
    case '{':
      return false;
    case '.':
      lexer->advance(lexer, false);
      if (lexer->lookahead != '.') return false;
      break;
    default:
      if (is_letter(lexer->lookahead)) {
        read_word(lexer, word);
        if (strcmp(word, "from") == 0 && is_inline(lexer->lookahead)) return false;
        skip_inline(lexer, false);
        if (lexer->lookahead == '{') return false;
      }
  }
  lexer->result_symbol = UNIT;
  return true;
}
