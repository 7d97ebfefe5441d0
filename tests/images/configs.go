package images

import (
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// A config is an image on busybox that differs in its configuration alone.
type config struct {
	name   string
	config v1.Config
}

// configs are the images that differ in their configuration alone.
func configs() []config {
	sh := []string{"sh"}
	waits := func(signal string) []string { // for its end, or the signal
		return []string{"sh", "-c", "trap 'echo " + signal + "; exit 7' " + signal + "; echo ready; while :; do sleep 0.1; done"}
	}
	return []config{
		{"busy", v1.Config{Cmd: sh, Env: []string{"FOO=bar"}}},
		// Entrypoint and command, in each combination.
		{"entry-cmd", v1.Config{Entrypoint: []string{"echo", "entry"}, Cmd: []string{"cmd", "two words"}}},
		{"entry", v1.Config{Entrypoint: []string{"echo", "entry"}}},
		{"cmd", v1.Config{Cmd: []string{"echo", "cmd"}}},
		{"nothing", v1.Config{}},
		{"shell-form", v1.Config{Entrypoint: []string{"/bin/sh", "-c", "echo \"$0 $*\""}, Cmd: []string{"zero", "one"}}},
		{"entry-missing", v1.Config{Entrypoint: []string{"/no/such/entrypoint"}, Cmd: []string{"x"}}},
		// Environment.
		{"env", v1.Config{Cmd: []string{"env"}, Env: []string{
			"SPACES=two  words ", "EMPTY=", "EQUALS=a=b=c", "UNICODE=ünï", "LINES=one\ntwo", "QUOTES=\"'$HOME`\\",
			"PATH=/usr/bin:/bin", "HOME=/custom", "TWICE=1", "TWICE=2", "no-identifier.x=1",
		}}},
		// Working directory.
		{"workdir", v1.Config{Cmd: []string{"pwd"}, WorkingDir: "/made/for the command"}},
		{"workdir-there", v1.Config{Cmd: []string{"pwd"}, WorkingDir: "/home/alice"}},
		// User.
		{"user-name", v1.Config{Cmd: []string{"id"}, User: "alice"}},
		{"user-number", v1.Config{Cmd: []string{"id"}, User: "1000"}},
		{"user-group", v1.Config{Cmd: []string{"id"}, User: "alice:staff"}},
		{"user-numbers", v1.Config{Cmd: []string{"id"}, User: "4711:4712"}},
		{"user-unknown", v1.Config{Cmd: []string{"id"}, User: "nosuch"}},
		{"user-like-number", v1.Config{Cmd: []string{"id"}, User: "1234"}},
		{"user-nohome", v1.Config{Cmd: []string{"sh", "-c", "echo \"HOME=$HOME\""}, User: "nohome"}},
		// What asks it to end.
		{"stop-int", v1.Config{Cmd: waits("INT"), StopSignal: "SIGINT"}},
		{"stop-10", v1.Config{Cmd: waits("USR1"), StopSignal: "10"}},
		{"stop-term", v1.Config{Cmd: waits("TERM")}},
		// The rest.
		{"labels", v1.Config{
			Cmd: sh, Labels: map[string]string{"org.example.a": "1", "empty": ""},
			ExposedPorts: map[string]struct{}{"80/tcp": {}, "53/udp": {}, "9000": {}},
			OnBuild:      []string{"RUN false"}, Healthcheck: &v1.HealthConfig{Test: []string{"CMD", "false"}},
			Shell: []string{"/no/such/shell"},
		}},
	}
}
