package smoke

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// The types below read YAML by themselves, because package yaml drops null items of
// lists, forgets about unknown keys where it is called for a part of a file, and says
// what is wrong in the words of Go's types.

// wrong is a mistake at a place in a file.
func wrong(n *yaml.Node, format string, args ...any) error {
	return fmt.Errorf("line %d: %s", n.Line, fmt.Sprintf(format, args...))
}

// called is what a user calls what stands there.
func called(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case isNull(n):
		return "nothing"
	}
	return strconv.Quote(n.Value)
}

// resolved is what an alias stands for, or else the node itself.
func resolved(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// text is a text, or a number or the like, which is taken as it is written.
type text string

func (t *text) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind != yaml.ScalarNode || isNull(n) {
		return wrong(n, "a text is wanted here, and this is %s", called(n))
	}
	*t = text(n.Value)
	return nil
}

// number is a whole number.
type number int

func (i *number) UnmarshalYAML(n *yaml.Node) error {
	v, err := strconv.Atoi(n.Value)
	if n.Kind != yaml.ScalarNode || err != nil {
		return wrong(n, "a whole number is wanted here, and this is %s", called(n))
	}
	*i = number(v)
	return nil
}

// duration is written as "30s" or "2m".
type duration time.Duration

func (d *duration) UnmarshalYAML(n *yaml.Node) error {
	t, err := time.ParseDuration(n.Value)
	if err != nil || n.Kind != yaml.ScalarNode {
		return wrong(n, "%s is no time: write it as 500ms, 30s or 2m", called(n))
	}
	*d = duration(t)
	return nil
}

// items is a list without null items, which are a dash too many.
type items[T any] []T

func (l *items[T]) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind != yaml.SequenceNode {
		return wrong(n, "a list is wanted here, and this is %s", called(n))
	}
	*l = make(items[T], len(n.Content))
	for i, c := range n.Content {
		if isNull(resolved(c)) {
			return wrong(c, "an item of this list is empty: fill it in, or take its dash away")
		}
		if err := c.Decode(&(*l)[i]); err != nil {
			return err
		}
	}
	return nil
}

// texts is a list, or one text that stands for a list of it.
type texts []string

func (t *texts) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		*t = texts{n.Value}
		return nil
	}
	var list items[text]
	if err := list.UnmarshalYAML(n); err != nil {
		return err
	}
	*t = make(texts, len(list))
	for i, s := range list {
		(*t)[i] = string(s)
	}
	return nil
}

// numbers is a list, or one number that stands for a list of it.
type numbers []number

func (l *numbers) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		*l = make(numbers, 1)
		return n.Decode(&(*l)[0])
	}
	return (*items[number])(l).UnmarshalYAML(n)
}

// A pair is a key and its value.
type pair struct {
	key   string
	node  *yaml.Node // the key's
	value *yaml.Node // no alias
}

// maxMerge bounds merges of mappings that have merges, which may go round in circles.
const maxMerge = 16

// pairs are what a mapping has, in the order in which it is written, with what it merges
// ("<<") and does not have itself behind that. what names it: "a case".
func pairs(n *yaml.Node, what string) ([]pair, error) { return pairsOf(n, what, maxMerge) }

func pairsOf(n *yaml.Node, what string, depth int) ([]pair, error) {
	if n.Kind != yaml.MappingNode {
		return nil, wrong(n, "%s is written as \"key: value\", and this is %s", what, called(n))
	}
	if depth == 0 {
		return nil, wrong(n, "merges (<<) are too deep, or go round in circles")
	}
	var own, merged []pair
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], resolved(n.Content[i+1])
		if key.Kind != yaml.ScalarNode {
			return nil, wrong(key, "a key must be a text, and this is %s", called(resolved(key)))
		}
		if seen[key.Value] {
			return nil, wrong(key, "%s has %s twice", what, key.Value)
		}
		seen[key.Value] = true
		if key.ShortTag() != "!!merge" {
			own = append(own, pair{key.Value, key, value})
			continue
		}
		from := []*yaml.Node{value}
		if value.Kind == yaml.SequenceNode {
			from = value.Content
		}
		for _, m := range from {
			more, err := pairsOf(resolved(m), "what is merged (<<)", depth-1)
			if err != nil {
				return nil, err
			}
			merged = append(merged, more...)
		}
	}
	for _, p := range merged {
		if !seen[p.key] {
			seen[p.key] = true
			own = append(own, p)
		}
	}
	return own, nil
}

// decode reads a mapping into a struct, whose tags are the keys that there are. What is
// null is left out, and so are keys that begin with x-.
func decode(n *yaml.Node, what string, into any) error {
	list, err := pairs(n, what)
	if err != nil {
		return err
	}
	v := reflect.ValueOf(into).Elem()
	fields := map[string]reflect.Value{}
	for i := range v.NumField() {
		if name := v.Type().Field(i).Tag.Get("yaml"); name != "" {
			fields[name] = v.Field(i)
		}
	}
	for _, p := range list {
		field, ok := fields[p.key]
		switch {
		case !ok && strings.HasPrefix(p.key, "x-"): // a place for anchors
		case !ok:
			return wrong(p.node, "%s has no key %q; there are %s", what, p.key, strings.Join(slices.Sorted(maps.Keys(fields)), ", "))
		case isNull(p.value):
		default:
			if err := p.value.Decode(field.Addr().Interface()); err != nil {
				return err
			}
		}
	}
	return nil
}
