package main

import (
	"fmt"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// ChatError is a failed call.
type ChatError struct {
	Code    codes.Code
	Message string
	// Reason is an ErrorReason of the contract, without its prefix; empty where the gateway was not reached.
	Reason string
	// Param is the invalid field of the request.
	Param string
	// RetryAfter is the time after which the call may succeed; zero where it is not known.
	RetryAfter time.Duration
	RequestID  string

	cause error
}

func (e *ChatError) Error() string {
	param, request := "", ""
	if e.Param != "" {
		param = " (" + e.Param + ")"
	}
	if e.RequestID != "" {
		request = " [" + e.RequestID + "]"
	}
	return fmt.Sprintf("%s %s%s: %s%s", e.Code, e.Reason, param, e.Message, request)
}

// Unwrap returns gRPC's error.
func (e *ChatError) Unwrap() error { return e.cause }

// chatError makes a *ChatError of a call's error, with the details that google.rpc.Status holds. It keeps nil.
func chatError(err error) error {
	if err == nil {
		return nil
	}
	found := status.Convert(err)
	result := &ChatError{Code: found.Code(), Message: found.Message(), cause: err}
	if found.Code() == codes.DeadlineExceeded {
		result.Reason = "TIMEOUT" // this side's deadline comes without details
	}
	for _, detail := range found.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			result.Reason = detail.GetReason()
			result.Param, result.RequestID = detail.GetMetadata()["param"], detail.GetMetadata()["request_id"]
		case *errdetails.RetryInfo:
			result.RetryAfter = detail.GetRetryDelay().AsDuration()
		}
	}
	return result
}
