package standin_test

import (
	"context"
	"fmt"
	"time"

	"github.com/v6node/v6node/integration/standin"
)

// A world with one organization, a task, and a node that never comes.
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	s, err := standin.New(standin.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()
	hospital := s.AddOrganization("hospital")
	study := s.AddCollaboration("study", false, hospital)
	s.AddNode(hospital, study) // returns the API key for the node's configuration
	s.AddUser(hospital, "ada", "secret")

	ada, err := standin.NewResearcher(ctx, s.URL(), "ada", "secret", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer ada.Close()
	task, err := ada.CreateTask(ctx, standin.TaskSpec{
		Image: "registry.example.org/average:1", Collaboration: study, Organizations: []int64{hospital},
		Method: "partial", Kwargs: map[string]any{"column": "age"},
		Databases: []standin.DatabaseSpec{{Label: "default"}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(s.TaskStatus(task))
	if err := ada.Kill(ctx, task); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(ada.WaitTask(ctx, task))
	// Output:
	// pending
	// killed by user <nil>
}
