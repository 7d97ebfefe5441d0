package main

import "regexp"

// accepted are the differences between Docker and husk that are meant, or that nobody
// can do anything about. Any other fails TestBesideDocker.
var accepted = []struct {
	test   string         // its name, "" for all
	line   *regexp.Regexp // of what differences gives
	reason string
}{}

// acceptedReason is why a line of a test's differences is no failure, "" if it is one.
func acceptedReason(test, line string) string {
	for _, a := range accepted {
		if (a.test == "" || a.test == test) && a.line.MatchString(line) {
			return a.reason
		}
	}
	return ""
}
