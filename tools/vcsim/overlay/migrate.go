// Moves of a VM to another host, datastore, pool or folder, its files with it; NFS datastores.
package simulator

import (
	"os"
	"path"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// RelocateVMTask replaces the stock one, which moves no file.
func (vm *VirtualMachine) RelocateVMTask(ctx *Context, req *types.RelocateVM_Task) soap.HasFault {
	task := CreateTask(vm, "relocateVm", func(*Task) (types.AnyType, types.BaseMethodFault) {
		return nil, vm.relocate(ctx, &req.Spec)
	})
	return &methods.RelocateVM_TaskBody{Res: &types.RelocateVM_TaskResponse{Returnval: task.Run()}}
}

// MigrateVMTask moves to a host or pool.
func (vm *VirtualMachine) MigrateVMTask(ctx *Context, req *types.MigrateVM_Task) soap.HasFault {
	task := CreateTask(vm, "migrateVm", func(*Task) (types.AnyType, types.BaseMethodFault) {
		return nil, vm.relocate(ctx, &types.VirtualMachineRelocateSpec{Host: req.Host, Pool: req.Pool})
	})
	return &methods.MigrateVM_TaskBody{Res: &types.MigrateVM_TaskResponse{Returnval: task.Run()}}
}

func (vm *VirtualMachine) relocate(ctx *Context, spec *types.VirtualMachineRelocateSpec) types.BaseMethodFault {
	if spec.Datastore != nil || len(spec.Disk) != 0 {
		if err := vm.moveFiles(spec); err != nil {
			return &types.FileFault{File: err.Error()}
		}
		vm.resetTracking("relocated")
	}
	if ref := spec.Host; ref != nil {
		if old, ok := Map.Get(*vm.Runtime.Host).(*HostSystem); ok {
			RemoveReference(&old.Vm, vm.Self)
		}
		host := Map.Get(*ref).(*HostSystem)
		host.Vm = append(host.Vm, vm.Self)
		Map.Update(vm, []types.PropertyChange{
			{Name: "runtime.host", Val: ref}, {Name: "summary.runtime.host", Val: ref},
		})
	}
	if ref := spec.Pool; ref != nil {
		if vm.ResourcePool != nil {
			if old, ok := asResourcePoolMO(Map.Get(*vm.ResourcePool)); ok {
				RemoveReference(&old.Vm, vm.Self)
			}
		}
		if pool, ok := asResourcePoolMO(Map.Get(*ref)); ok {
			pool.Vm = append(pool.Vm, vm.Self)
		}
		Map.Update(vm, []types.PropertyChange{{Name: "resourcePool", Val: ref}})
	}
	if ref := spec.Folder; ref != nil {
		folder := Map.Get(*ref).(*Folder)
		folder.MoveIntoFolderTask(ctx, &types.MoveIntoFolder_Task{List: []types.ManagedObjectReference{vm.Self}})
	}
	return nil
}

// moveFiles takes the VM's folder, or single disks, to another datastore.
func (vm *VirtualMachine) moveFiles(spec *types.VirtualMachineRelocateSpec) error {
	to := map[int32]string{} // datastore of each disk that moves
	if spec.Datastore != nil {
		name := Map.Get(*spec.Datastore).(*Datastore).Name
		for _, d := range vmDisks(vm.Config.Hardware.Device) {
			to[d.Key] = name
		}
		if err := vm.moveConfiguration(name); err != nil {
			return err
		}
	}
	for _, l := range spec.Disk {
		to[l.DiskId] = Map.Get(l.Datastore).(*Datastore).Name
	}
	moved := map[string]string{}
	seen := map[*types.VirtualDiskFlatVer2BackingInfo]bool{}
	for _, view := range vm.views() {
		for _, d := range vmDisks(view) {
			for b := back(d); b != nil && to[d.Key] != "" && !seen[b]; b = b.Parent {
				seen[b] = true
				if err := moveDisk(b, to[d.Key], moved); err != nil {
					return err
				}
			}
		}
	}
	for old := range moved {
		_, _ = os.Remove(flat(old)), os.Remove(dsFile(old))
	}
	vm.setDevices(vm.Config.Hardware.Device)
	vm.useOnly()
	return nil
}

func moveDisk(b *types.VirtualDiskFlatVer2BackingInfo, datastore string, moved map[string]string) error {
	var p object.DatastorePath
	p.FromString(b.FileName)
	if p.Datastore == datastore {
		return nil
	}
	old := b.FileName
	p.Datastore = datastore
	if moved[old] == "" {
		if err := clone(flat(old), flat(p.String())); err != nil {
			return err
		}
		if err := clone(dsFile(old), dsFile(p.String())); err != nil {
			return err
		}
		moved[old] = p.String()
	}
	b.FileName, b.ChangeId = p.String(), ""
	return nil
}

// moveConfiguration takes .vmx, .nvram and log along.
func (vm *VirtualMachine) moveConfiguration(datastore string) error {
	var p object.DatastorePath
	p.FromString(vm.Config.Files.VmPathName)
	if p.Datastore == datastore {
		return nil
	}
	old := path.Dir(dsFile(vm.Config.Files.VmPathName))
	p.Datastore = datastore
	folder := path.Dir(dsFile(p.String()))
	if err := os.MkdirAll(folder, 0755); err != nil {
		return err
	}
	entries, err := os.ReadDir(old)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if path.Ext(e.Name()) != ".vmdk" {
			if err := clone(path.Join(old, e.Name()), path.Join(folder, e.Name())); err != nil {
				return err
			}
			_ = os.Remove(path.Join(old, e.Name()))
		}
	}
	vm.log = path.Join(folder, "vmware.log")
	place := path.Dir(p.String())
	Map.Update(vm, []types.PropertyChange{
		{Name: "config.files", Val: types.VirtualMachineFileInfo{
			VmPathName: p.String(), SnapshotDirectory: place, SuspendDirectory: place, LogDirectory: place,
		}},
		{Name: "summary.config.vmPathName", Val: p.String()},
	})
	return nil
}

// useOnly makes the VM's datastores those that its files are in.
func (vm *VirtualMachine) useOnly() {
	for _, ref := range vm.Datastore {
		ds := Map.Get(ref).(*Datastore)
		RemoveReference(&ds.Vm, vm.Self)
	}
	vm.Datastore, vm.LayoutEx.File = nil, nil
	vm.RefreshStorageInfo(nil, nil)
	for _, ref := range vm.Datastore {
		ds := Map.Get(ref).(*Datastore)
		ds.Vm = append(ds.Vm, vm.Self)
	}
	Map.Update(vm, []types.PropertyChange{{Name: "datastore", Val: vm.Datastore}})
}

// vadpNas is the exported folder itself, when it is on this machine.
func vadpNas(s types.HostNasVolumeSpec) string {
	if st, err := os.Stat(s.RemotePath); err == nil && st.IsDir() && !path.IsAbs(s.LocalPath) {
		return s.RemotePath
	}
	return s.LocalPath
}

// vadpMount is called for a datastore about to be added to a host; true if another host had it, so
// that only this mount is new.
func vadpMount(dss *HostDatastoreSystem, ds *Datastore) bool {
	mount := types.DatastoreHostMount{
		Key: dss.Host.Self,
		MountInfo: types.HostMountInfo{
			AccessMode: string(types.HostMountModeReadWrite), Mounted: types.NewBool(true), Accessible: types.NewBool(true),
		},
	}
	known, ok := Map.Get(ds.Self).(*Datastore)
	if !ok {
		if _, nas := ds.Info.(*types.NasDatastoreInfo); nas {
			ds.Host = append(ds.Host, mount)
		}
		return false
	}
	known.Host = append(known.Host, mount)
	dss.Datastore = append(dss.Datastore, ds.Self)
	dss.Host.Datastore = dss.Datastore
	parent := hostParent(dss.Host)
	Map.AddReference(parent, &parent.Datastore, ds.Self)
	return true
}

// RemoveDatastore unmounts it from this host, and forgets it with the last.
func (dss *HostDatastoreSystem) RemoveDatastore(ctx *Context, req *types.RemoveDatastore) soap.HasFault {
	body := &methods.RemoveDatastoreBody{}
	ds, ok := Map.Get(req.Datastore).(*Datastore)
	if !ok {
		body.Fault_ = Fault("", &types.ManagedObjectNotFound{Obj: req.Datastore})
		return body
	}
	for _, ref := range ds.Vm {
		if vm := virtualMachine(ref.Value); vm != nil && *vm.Runtime.Host == dss.Host.Self {
			body.Fault_ = Fault("", &types.ResourceInUse{Type: "Datastore", Name: ds.Name})
			return body
		}
	}
	RemoveReference(&dss.Datastore, ds.Self)
	dss.Host.Datastore = dss.Datastore
	for i, m := range ds.Host {
		if m.Key == dss.Host.Self {
			ds.Host = append(ds.Host[:i:i], ds.Host[i+1:]...)
			break
		}
	}
	if len(ds.Host) == 0 {
		parent := hostParent(dss.Host)
		RemoveReference(&parent.Datastore, ds.Self)
		folder, _ := asFolderMO(Map.Get(*ds.Parent))
		folderRemoveChild(ctx, folder, ds.Self)
	}
	body.Res = new(types.RemoveDatastoreResponse)
	return body
}

// datacenters are the references of all.
func datacenters() []types.ManagedObjectReference {
	var res []types.ManagedObjectReference
	for _, e := range Map.All("Datacenter") {
		res = append(res, e.(mo.Reference).Reference())
	}
	return res
}
