package ktap

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestResultLines(t *testing.T) {
	for line, want := range map[string]item{
		"ok 1":                     {ok: true, number: 1},
		"ok":                       {ok: true, number: -1},
		"not ok 12 - a name":       {number: 12, text: "a name"},
		"ok - a name":              {ok: true, number: -1, text: "a name"},
		"ok 3 # SKIP no device":    {ok: true, number: 3, directive: directive{word: "SKIP", text: "no device"}},
		"ok 3 a #skip":             {ok: true, number: 3, text: "a", directive: directive{word: "SKIP"}},
		"ok 3 a # skipped: why":    {ok: true, number: 3, text: "a", directive: directive{word: "SKIP", text: "why"}},
		"ok 3 a # skipping rope":   {ok: true, number: 3, text: "a", directive: directive{text: "skipping rope"}},
		"not ok 4 b # TODO":        {number: 4, text: "b", directive: directive{word: "TODO"}},
		"ok 5 return # rcode=0":    {ok: true, number: 5, text: "return", directive: directive{text: "rcode=0"}},
		"ok 6 issue #42":           {ok: true, number: 6, text: "issue #42"},
		`ok 6 a \# SKIP \\ b`:      {ok: true, number: 6, text: `a # SKIP \ b`},
		"not ok 7 x # TIMEOUT 5 s": {number: 7, text: "x", directive: directive{word: "TIMEOUT", text: "5 s"}},
		"not ok 8 # error broken":  {number: 8, directive: directive{word: "ERROR", text: "broken"}},
		"ok 9 a #  ":               {ok: true, number: 9, text: "a"},
		"    ok 10 -":              {ok: true, number: 10, depth: 4},
		"\tok 11 - a":              {ok: true, number: 11, text: "a", depth: 4},
		"# ok 12 a":                {ok: true, number: 12, text: "a", depth: 2, quoted: true},
		"# #   ok 13 a":            {ok: true, number: 13, text: "a", depth: 6, quoted: true},
	} {
		want.kind, want.line = test, line
		require.Equal(t, want, parse(line), line)
	}
}

func TestLinesThatAreNoResults(t *testing.T) {
	for line, kind := range map[string]kind{
		"":                         other,
		"ok then":                  other,
		"okay 1":                   other,
		"not ok: it failed":        other,
		"nok 1":                    other,
		"ok1 a":                    other,
		"1..5 devices":             other,
		"2..5":                     other,
		"TAP version 13.":          other,
		"a TAP version 13":         other,
		"#PF: read access":         other,
		"#":                        comment,
		"# KTAP":                   comment,
		"# ok, it said":            comment,
		"1..5":                     plan,
		"1..0 # SKIP not here":     plan,
		"KTAP version 1":           header,
		"    TAP version 14":       header,
		"Bail out!":                bailOut,
		"# Bail out! disk is full": bailOut,
		"# Subtest: a":             subtest,
		"    # Subtest: a":         subtest,
	} {
		require.Equal(t, kind, parse(line).kind, line)
	}
}
