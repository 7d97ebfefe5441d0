package image

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"golang.org/x/sys/unix"
)

// How a connection is tried again.
const (
	maxTries  = 5
	firstWait = 300 * time.Millisecond // before the second try; then twice as long each time
	maxWait   = 30 * time.Second       // that a registry can ask for
)

// stall is how long a registry may be silent in the middle of an answer.
const stall = 60 * time.Second

// errStalled is that a registry was silent for too long.
var errStalled = errors.New("the connection has stalled")

// A refusal is an error for which there is no use in trying again.
type refusal struct{ error }

func (r refusal) Unwrap() error { return r.error }

// A waitError is an answer to try again later.
type waitError struct {
	error
	wait time.Duration // as the registry asks for; 0 if it does not say
}

func (w waitError) Unwrap() error { return w.error }

// checkStatus makes an error of an answer that is not wanted.
func checkStatus(resp *http.Response, wanted ...int) error {
	err := transport.CheckError(resp, wanted...)
	if err == nil {
		return nil
	}
	err = foreignError{err}
	seconds, bad := strconv.Atoi(resp.Header.Get("Retry-After"))
	if bad != nil || seconds < 0 {
		return err
	}
	return waitError{err, min(time.Duration(seconds)*time.Second, maxWait)}
}

// statusOf is the HTTP status that an error comes from, 0 if there was none.
func statusOf(err error) int {
	var answer *transport.Error
	if errors.As(err, &answer) {
		return answer.StatusCode
	}
	return 0
}

// temporary tells whether it may go better next time.
func temporary(ctx context.Context, err error) bool {
	if err == nil || ctx.Err() != nil || errors.As(err, new(refusal)) {
		return false
	}
	switch statusOf(err) {
	case 0:
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	default:
		return false
	}
	var network net.Error
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || errors.Is(err, errStalled) ||
		errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNREFUSED) ||
		errors.As(err, &network) && network.Timeout()
}

// A patience counts tries, and waits between them.
type patience struct {
	first time.Duration
	tries int
}

// again waits before another try. It gives err back when there is to be none.
func (p *patience) again(ctx context.Context, err error) error {
	p.tries++
	if p.tries >= maxTries || !temporary(ctx, err) {
		return err
	}
	wait := p.first << (p.tries - 1)
	var asked waitError
	if errors.As(err, &asked) && asked.wait > wait {
		wait = asked.wait
	}
	if pause(ctx, wait) != nil {
		return context.Cause(ctx)
	}
	return nil
}
