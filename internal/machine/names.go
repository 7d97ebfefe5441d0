package machine

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"math/big"
	"regexp"
	"strings"
)

// What random names are made of.
const (
	adjectives = "amber ancient arctic bold bright brisk calm chilly clear coastal cool crisp dark deep distant drifting " +
		"eager early feathery fleet foggy frosty frozen gentle gleaming glacial hardy hidden icy keen late lively lone " +
		"lunar mellow misty nimble northern opal pale patient pearly polar proud quiet rapid rolling salty serene " +
		"sharp silent silver sleek snowy steady stormy swift tidal tranquil vast wandering white wild windy wintry"
	nouns = "albatross anchor atoll auk barnacle bay beacon beluga berg bight breaker brig buoy cape clipper cod coral cove " +
		"crab current cutter dinghy dolphin drift eider ferry fjord floe fulmar gale glacier gull halibut harbor herring " +
		"inlet island kelp krill lagoon lantern lighthouse limpet lobster malamute mussel narwhal orca osprey otter " +
		"oyster pearl penguin petrel pier plover porpoise puffin reef sail schooner seal shoal skua sloop snowdrift " +
		"sound squall starling strait tern tide trawler tundra urchin walrus wave whale wharf"
)

// randomName is a name that people can remember: "frosty_puffin".
func randomName() string {
	return pick(strings.Fields(adjectives)) + "_" + pick(strings.Fields(nouns))
}

func pick(words []string) string {
	i, err := rand.Int(rand.Reader, big.NewInt(int64(len(words))))
	if err != nil { // crypto/rand never fails on Linux
		return words[0]
	}
	return words[i.Int64()]
}

// nameForm is Docker's.
var nameForm = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`)

// maxName bounds a name, so that it fits into a host name and error messages.
const maxName = 255

// CheckName says what is wrong with a machine's name.
func CheckName(name string) error {
	if len(name) < 2 || len(name) > maxName || !nameForm.MatchString(name) {
		return fmt.Errorf("machine name %q: two to %d letters, digits and _.-, the first a letter or digit, are possible", name, maxName)
	}
	return nil
}

// idLength is an ID's, in hexadecimal digits, and ShortID that of the part that people see.
const (
	idLength = 64
	ShortID  = 12
)

// randomID is a new machine's ID.
func randomID() string {
	var b [idLength / 2]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// isID tells whether a text has the form of an ID.
func isID(s string) bool {
	if len(s) != idLength {
		return false
	}
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
