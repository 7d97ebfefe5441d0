package report

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/huskvm/husk/internal/smoke/result"
)

func TestJSON(t *testing.T) {
	var b strings.Builder
	run := sample()
	require.NoError(t, JSON(&b, run))
	golden(t, "run.json", b.String())

	var back result.Run
	dec := json.NewDecoder(strings.NewReader(b.String()))
	dec.DisallowUnknownFields()
	require.NoError(t, dec.Decode(&back))
	require.Equal(t, listed(run).Cases[3], back.Cases[3])
	require.Equal(t, "bell \a, escape \x1b[31m, latin-1 \ufffd, ]]> & <b>, \ufffe \u202e", back.Cases[2].Attempts[0].Console[1].Text)
	require.Nil(t, run.Cases[8].Attempts, "the run itself is as it was")
}

func TestJSONHasNoNull(t *testing.T) {
	for _, run := range []*result.Run{{}, {Cases: []result.Case{{}, {Attempts: []result.Attempt{{Findings: []result.Finding{{}}}}}}}} {
		var b strings.Builder
		require.NoError(t, JSON(&b, run))
		require.NotContains(t, b.String(), "null")
	}
}
