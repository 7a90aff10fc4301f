package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log"
	"os"
	"time"

	"google.golang.org/genproto/googleapis/rpc/code"
)

// object is a JSON object.
type object map[string]any

// The addresses and keys of the clients that do not use the real ones; an empty address is the real one.
var others = map[string]struct{ address, key string }{
	"missing_key": {"", ""},
	"wrong_key":   {"", "wrong"},
	"unreachable": {"127.0.0.1:1", ""},
}

func show(line object) {
	text, err := json.Marshal(line)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := os.Stdout.Write(append(text, '\n')); err != nil {
		log.Fatal(err)
	}
}

func token(text string) { show(object{"token": text}) }

// main runs the scenarios of tests/polyglot/scenarios.py that standard input names, over one connection.
func main() {
	address, key := os.Args[1], os.Getenv("LMCHAT_API_KEY")
	shared, err := NewClient(address, key)
	if err != nil {
		log.Fatal(err)
	}
	defer shared.Close()
	names := bufio.NewScanner(os.Stdin)
	for names.Scan() {
		if err := run(shared, address, names.Text()); err != nil {
			log.Fatal(err)
		}
	}
}

// run runs one scenario, and prints the error of its calls.
func run(client *Client, address, name string) error {
	if with, ok := others[name]; ok {
		other, err := NewClient(cmp.Or(with.address, address), with.key)
		if err != nil {
			return err
		}
		defer other.Close()
		client = other
	}
	ctx, cancel := context.WithTimeout(context.Background(), 600*time.Second)
	defer cancel()
	result, err := scenarios[name](ctx, client, name)
	var failed *ChatError
	if errors.As(err, &failed) {
		var retryAfter any
		if failed.RetryAfter > 0 {
			retryAfter = failed.RetryAfter.Seconds()
		}
		show(object{"error": object{
			"code":        code.Code_name[int32(failed.Code)],
			"reason":      failed.Reason,
			"param":       failed.Param,
			"retry_after": retryAfter,
		}})
		return nil
	}
	if err == nil {
		show(object{"done": result})
	}
	return err
}
